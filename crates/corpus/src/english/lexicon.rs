//! The words of the built-in corpus.
//!
//! Eight settings, each with a cast of three people and its own things, tools and places, and a common stock
//! of function words, adjectives, adverbs and verbs. The lists are plain strings of words, the frequent ones
//! first: a word's probability falls with its rank (see [`super::network::Builder::words`]). Nouns give
//! their plural after a slash where it is irregular, verbs their past; where a verb is quite irregular it
//! gives third person and past. `_` stands for a space inside an entry; the first word of such a verb is the
//! one that is inflected.

/// What the grammar must know about a person to refer to them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gender {
    Feminine,
    Masculine,
}

/// A person of a setting.
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) role: &'static str,
    pub(super) gender: Gender,
}

/// What people do in a setting with one kind of thing.
pub(super) struct Action {
    /// Transitive verbs.
    pub(super) verbs: &'static str,
    /// Their objects.
    pub(super) things: &'static str,
    /// Adjectives for these objects and no others.
    pub(super) qualities: &'static str,
    /// What these objects do somewhere.
    pub(super) staying: &'static str,
}

/// A setting: the topic of a run of sentences.
pub(super) struct Topic {
    /// The phrase that opens the scene.
    pub(super) scene: &'static str,
    pub(super) cast: [Person; 3],
    /// Animals and other people.
    pub(super) creatures: &'static str,
    /// What creatures do; intransitive.
    pub(super) doings: &'static str,
    /// What the people of the cast do; intransitive.
    pub(super) pastimes: &'static str,
    pub(super) actions: [Action; 4],
    /// Places to be *in*.
    pub(super) inside: &'static str,
    /// Places to be *on*.
    pub(super) upon: &'static str,
    pub(super) tools: &'static str,
    /// The action that befits all [`THINGS`].
    pub(super) loose: usize,
}

const fn she(name: &'static str, role: &'static str) -> Person {
    Person { name, role, gender: Gender::Feminine }
}

const fn he(name: &'static str, role: &'static str) -> Person {
    Person { name, role, gender: Gender::Masculine }
}

const fn act(
    verbs: &'static str,
    things: &'static str,
    qualities: &'static str,
    staying: &'static str,
) -> Action {
    Action { verbs, things, qualities, staying }
}

/// The settings.
pub(super) const TOPICS: [Topic; 8] = [
    Topic {
        scene: "in the harbour",
        cast: [she("anna", "captain"), he("tom", "sailor"), she("nora", "diver")],
        creatures: "gull seal crab otter tourist heron turtle whale tern pelican dolphin \
            fisherman/fishermen walrus pirate parrot penguin",
        doings: "swim/swam dive sleep/slept drift splash wait float doze bathe sing/sang eat/ate arrive \
            shiver hide/hid",
        pastimes: "swim/swam row sail dive whistle fish shiver wave",
        actions: [
            act(
                "mend wash fold patch dry drag untie/untied coil hoist stow lower",
                "net rope sail flag hammock blanket cable tent banner curtain awning jersey mat",
                "wet torn salty tangled thick loose striped",
                "hang/hung lie/lay dry",
            ),
            act(
                "steer paint anchor tow load scrub/scrubbed repair launch moor charter sink/sank",
                "boat ship raft ferry barge canoe yacht kayak dinghy steamer trawler tug cutter",
                "wooden leaky fast sturdy slow flat empty",
                "lie/lay float rock",
            ),
            act(
                "catch/caught sell/sold salt weigh smoke fry clean net/netted eat/ate grill count",
                "eel crab sardine mussel lobster oyster prawn herring squid shark cockle tuna flounder",
                "fresh fat slippery silvery tasty fishy tender",
                "lie/lay stink/stank swim/swam",
            ),
            act(
                "find/found lift bury/buried open carry steal/stole drop/dropped polish keep/kept examine \
                    hide/hid",
                "chest shell pearl coin lantern compass map bottle barrel telescope bell letter key",
                "rusty hidden shiny ancient foreign lost sealed",
                "lie/lay rust gleam",
            ),
        ],
        inside: "bay cabin boathouse harbour water tavern cove lagoon market inlet cellar",
        upon: "pier beach deck island cliff dock shore quay reef sandbank jetty ramp",
        tools: "hook bucket needle brush pole knife oar winch sponge hammer pulley",
        loose: 3,
    },
    Topic {
        scene: "on the farm",
        cast: [she("emma", "farmer"), he("jack", "shepherd"), she("ruth", "vet")],
        creatures: "cow horse hen goat pig duck lamb rooster donkey goose/geese dog swallow rabbit \
            farmhand bull puppy",
        doings: "graze sleep/slept wander rest jump play bark stray doze roam cough eat/ate drink/drank \
            run/ran sneeze",
        pastimes: "work sweat yawn whistle dig/dug snore sing/sang",
        actions: [
            act(
                "feed/fed brush lead/led count milk tie/tied lose/lost call wash chase shear",
                "pony calf/calves mule ram turkey sheepdog heifer foal piglet llama ox/oxen",
                "hungry muddy spotted woolly tame lame stubborn",
                "live graze rest",
            ),
            act(
                "plough water rake mow clear cross weed survey drain fertilise rent",
                "field meadow garden hill orchard vineyard pasture lawn ditch plot acre paddock",
                "grassy dry fertile stony steep wide wet",
                "lie/lay stretch begin/began",
            ),
            act(
                "pick peel sort store boil rinse harvest plant bite/bit pickle eat/ate",
                "apple pear plum carrot turnip cabbage bean pumpkin cherry potato/potatoes beet melon \
                    onion fig",
                "ripe sweet sour rotten juicy crisp green",
                "lie/lay grow/grew ripen",
            ),
            act(
                "mend build/built push pull oil paint borrow repair kick fix load",
                "cart gate fence wagon wheel ladder plough barrow trough tractor shed scarecrow pump",
                "wooden crooked creaky solid rusty sturdy useful",
                "stand/stood lie/lay rot/rotted",
            ),
        ],
        inside: "barn stable yard sty valley kitchen hayloft cornfield shade mud grass farmhouse",
        upon: "hilltop roof haystack bridge farm path ridge slope dunghill doorstep",
        tools: "rake fork spade bucket rope hammer shovel stick scythe broom hose",
        loose: 3,
    },
    Topic {
        scene: "in the bakery",
        cast: [she("clara", "baker"), he("hugo", "cook"), she("olga", "waitress")],
        creatures: "customer child/children waiter mouse/mice cat neighbour guest student sparrow clerk \
            grocer milkman/milkmen butcher twin widow apprentice",
        doings: "eat/ate wait chat/chatted laugh sit/sat linger arrive complain nod/nodded queue yawn \
            leave/left order smile pay/paid",
        pastimes: "hum/hummed yawn sweat sing/sang chat/chatted work sneeze",
        actions: [
            act(
                "bake sell/sold slice butter burn/burnt taste wrap/wrapped praise decorate toast eat/ate",
                "cake loaf/loaves bun pie tart roll biscuit waffle muffin pretzel cracker bagel pancake \
                    doughnut",
                "warm crusty sweet fresh stale golden fluffy",
                "lie/lay cool smell",
            ),
            act(
                "stir/stirred heat cool pour boil serve season spill thicken sip/sipped mix",
                "soup sauce stew cream broth pudding jam syrup custard batter gravy porridge cocoa",
                "hot thick creamy spicy thin rich bitter",
                "stand/stood cool steam",
            ),
            act(
                "wash dry stack fill drop/dropped break/broke scrub/scrubbed borrow rinse polish lift",
                "plate cup bowl pot spoon jug kettle pan dish glass tray fork saucer ladle",
                "dirty cracked spotless copper chipped shiny wobbly",
                "stand/stood lie/lay gleam",
            ),
            act(
                "chop/chopped peel weigh crush buy/bought order squeeze grate find/found smell dice",
                "onion carrot lemon egg nut tomato/tomatoes cheese mushroom apple radish olive pepper leek",
                "ripe sour fresh firm soft cheap crunchy",
                "lie/lay rot/rotted roll",
            ),
        ],
        inside: "kitchen shop cellar pantry oven cupboard bakery corner basket street larder drawer",
        upon: "table counter shelf/shelves stove bench doorstep floor board windowsill stool",
        tools: "knife spoon whisk ladle cloth fork sponge rolling_pin sieve spatula towel",
        loose: 2,
    },
    Topic {
        scene: "in the forest",
        cast: [he("oscar", "ranger"), she("wanda", "witch"), he("felix", "hermit")],
        creatures: "fox wolf/wolves bear owl hare stag badger squirrel raven hedgehog toad beetle \
            elf/elves hunter troll woodpecker",
        doings: "hunt hide/hid sleep/slept run/ran howl crawl dance rest listen vanish appear drink/drank \
            dig/dug wait play",
        pastimes: "hunt camp shiver mutter listen meditate whistle",
        actions: [
            act(
                "hear/heard track watch frighten follow see/saw tame trap/trapped lure surprise feed/fed",
                "boar lizard lynx snake otter hawk weasel ferret viper marten polecat falcon buzzard",
                "wild shy fierce silent hungry swift lonely",
                "live hide/hid rest",
            ),
            act(
                "climb fell/felled plant measure trim/trimmed shake/shook admire prune mark uproot \
                    burn/burnt",
                "oak pine birch elm willow bush maple fir hazel beech cedar larch poplar sapling",
                "tall hollow mossy leafless crooked mighty dead",
                "stand/stood grow/grew",
            ),
            act(
                "gather pick dry taste smell boil crush eat/ate brew examine mix",
                "mushroom berry herb root nut acorn flower leaf/leaves seed fern thistle nettle truffle \
                    petal",
                "bitter poisonous edible fragrant rare purple dried",
                "grow/grew lie/lay",
            ),
            act(
                "carry sharpen lose/lost hide/hid make/made carve swing/swung mend borrow find/found \
                    drop/dropped",
                "axe knife/knives bow basket trap torch whistle drum spear sling arrow flute broom",
                "sharp wooden magic blunt crude deadly carved",
                "lie/lay hang/hung",
            ),
        ],
        inside: "cave clearing hollow swamp hut forest thicket valley ravine mist moonlight undergrowth",
        upon: "path bridge rock branch hilltop moss stump ledge treetop trail riverbank",
        tools: "axe stick stone saw rope net spade spell lasso knife lantern",
        loose: 3,
    },
    Topic {
        scene: "at the school",
        cast: [she("alice", "teacher"), he("leo", "librarian"), she("vera", "astronomer")],
        creatures: "pupil student visitor inspector poet scholar janitor child/children painter professor \
            parent caretaker cat monk girl boy",
        doings: "study/studied read/read listen giggle whisper sit/sat write/wrote argue nod/nodded play \
            leave/left think/thought cheat yawn learn",
        pastimes: "study_late whisper cough argue frown yawn ponder",
        actions: [
            act(
                "read/read write/wrote open copy close borrow lend/lent finish print translate publish",
                "book letter poem story page note essay diary novel atlas dictionary chapter fable report",
                "boring funny thick secret unfinished dusty long",
                "lie/lay stand/stood",
            ),
            act(
                "observe measure draw/drew watch name photograph map/mapped see/saw sketch follow discover",
                "star planet comet moon cloud galaxy meteor crater eclipse rainbow orbit nebula sunset",
                "distant bright faint unknown round nameless cold",
                "shine/shone rise/rose glow",
            ),
            act(
                "solve explain forget/forgot repeat learn discuss ask understand/understood answer invent \
                    simplify",
                "riddle problem rule question sum lesson puzzle theorem idea proverb formula law fact",
                "hard easy clever silly difficult obvious deep",
                "stand/stood appear",
            ),
            act(
                "clean carry sharpen repair buy/bought lose/lost hide/hid polish break/broke use lift",
                "lamp clock globe pencil desk lens telescope pen chair ruler mirror stool bell",
                "wooden broken brass dusty useful cheap delicate",
                "stand/stood lie/lay",
            ),
        ],
        inside: "library hall classroom tower garden corridor attic observatory dormitory playground \
            archive kitchen",
        upon: "roof desk staircase blackboard balcony terrace bench floor sofa lawn windowsill",
        tools: "ruler pencil lens sponge chart compass feather magnet candle magnifying_glass pen",
        loose: 3,
    },
    Topic {
        scene: "at the theatre",
        cast: [he("victor", "conductor"), she("greta", "dancer"), he("paul", "clown")],
        creatures: "actor singer musician juggler critic drummer guest puppet monkey ballerina acrobat \
            poodle magician violinist spectator tenor",
        doings: "sing/sang dance clap/clapped rehearse laugh bow cheer weep/wept stumble shout arrive \
            wait smile cough whisper",
        pastimes: "dance practise stumble grin/grinned weep/wept bow stretch",
        actions: [
            act(
                "play tune carry polish hold/held repair sell/sold unpack drop/dropped test clean",
                "violin flute drum harp trumpet cello guitar banjo horn fiddle tuba oboe organ bassoon",
                "loud wooden brass rare shiny delicate expensive",
                "lie/lay stand/stood",
            ),
            act(
                "sing/sang rehearse whistle write/wrote hum/hummed compose hear/heard ruin perform learn \
                    finish",
                "song waltz ballad hymn melody opera march tango duet lullaby aria symphony carol",
                "sad slow merry famous gentle jolly tragic",
                "echo/echoes/echoed sound",
            ),
            act(
                "sew wear/wore borrow mend fold iron lose/lost try_on/tries_on/tried_on wash knit/knitted \
                    embroider",
                "costume mask hat dress cloak shoe wig glove scarf/scarves crown jacket cape sock shirt",
                "velvet silk ragged colourful tight elegant striped",
                "hang/hung lie/lay",
            ),
            act(
                "move paint hang/hung light/lit lift build/built break/broke hide/hid push design fix",
                "lamp candle ladder throne mirror sign statue curtain swing cage lantern screen backdrop",
                "tall painted fake golden crooked dusty dim",
                "stand/stood hang/hung",
            ),
        ],
        inside: "orchestra wardrobe gallery theatre wings spotlight basement audience lobby dressing_room \
            pit hall",
        upon: "stage balcony piano stool carpet rope platform scaffold sofa staircase trapeze",
        tools: "brush needle rope candle baton pin ribbon feather hammer fan stick",
        loose: 3,
    },
    Topic {
        scene: "in the castle",
        cast: [she("matilda", "queen"), he("arthur", "knight"), he("otto", "wizard")],
        creatures: "guard ghost prince servant giant bat jester princess page raven messenger duke monk \
            spider minstrel bishop",
        doings: "sleep/slept march roar ride/rode feast dance vanish kneel/knelt fight/fought wait boast \
            sing/sang snore drink/drank argue",
        pastimes: "feast fight/fought pray boast tremble snore drink/drank",
        actions: [
            act(
                "wear/wore steal/stole hide/hid polish count keep/kept find/found guard admire lose/lost \
                    drop/dropped",
                "crown ring jewel coin sword shield medal goblet necklace sceptre ruby helmet bracelet \
                    pearl",
                "golden silver royal priceless cursed stolen heavy",
                "lie/lay gleam glitter",
            ),
            act(
                "ride/rode saddle feed/fed groom tame chase chain free/freed brush seek/sought train",
                "horse dragon griffin mare unicorn stallion hound bear falcon camel pony leopard lion",
                "white fiery noble mighty winged faithful gentle",
                "live wait stand/stood",
            ),
            act(
                "lock open besiege storm build/built inspect enter defend clean search rebuild/rebuilt",
                "gate tower door chamber vault wall cellar dungeon chapel palace cage stable granary",
                "dark haunted stone tall narrow iron secret",
                "stand/stood crumble",
            ),
            act(
                "read/read burn/burnt write/wrote seal break/broke study/studied recite copy sing/sang \
                    forget/forgot whisper",
                "spell letter scroll law map poem promise oath treaty prophecy ballad verdict psalm",
                "sacred forbidden ancient solemn strange secret fatal",
                "lie/lay hang/hung",
            ),
        ],
        inside: "castle dungeon courtyard chapel tower hall kitchen crypt armoury moat maze library",
        upon: "wall drawbridge throne staircase battlement balcony rampart roof carpet terrace",
        tools: "sword lance torch key wand shield trumpet mirror whip dagger spyglass",
        loose: 0,
    },
    Topic {
        scene: "at the station",
        cast: [he("frank", "driver"), she("lucy", "engineer"), he("henry", "watchmaker")],
        creatures: "passenger porter pigeon traveller soldier guard cleaner nurse thief/thieves tourist \
            stranger lawyer policeman/policemen salesman/salesmen nun",
        doings: "wait hurry/hurried sleep/slept smoke yawn queue talk stand/stood read/read stop/stopped \
            complain arrive sit/sat leave/left",
        pastimes: "smoke yawn travel/travelled work cough doze frown",
        actions: [
            act(
                "drive/drove stop/stopped miss clean paint board hear/heard inspect start delay \
                    catch/caught",
                "train engine tram bus wagon van truck carriage taxi cab lorry trolley locomotive",
                "late crowded noisy empty fast yellow electric",
                "stop/stopped wait stand/stood",
            ),
            act(
                "repair wind/wound adjust oil test sell/sold set/set dismantle build/built polish design",
                "clock watch lock switch pump motor valve gauge radio alarm signal camera telephone",
                "broken tiny silent precise modern complicated reliable",
                "hang/hung tick lie/lay",
            ),
            act(
                "carry pack open weigh lose/lost lift drop/dropped forget/forgot steal/stole unlock \
                    find/found",
                "suitcase bag box parcel trunk basket umbrella coat purse rucksack sack briefcase hat",
                "heavy leather empty lost wet brown locked",
                "lie/lay stand/stood",
            ),
            act(
                "read/read buy/bought print fold tear/tore stamp collect check write/wrote borrow \
                    study/studied",
                "ticket newspaper map letter poster timetable card photograph magazine postcard note form \
                    novel",
                "cheap torn wrong crumpled boring blue valid",
                "lie/lay hang/hung",
            ),
        ],
        inside: "station tunnel workshop office waiting_room buffet depot carriage corridor subway rain \
            village",
        upon: "platform bridge track bench roof stairs pavement footbridge escalator doorstep",
        tools: "spanner hammer lamp torch whistle screwdriver broom trolley rag file pencil",
        loose: 2,
    },
];

/// Adjectives for any thing.
pub(super) const THING_ADJECTIVES: &str = "old new small big little red large long good heavy white black \
    green blue light dark fine strange bright grey plain brown pretty ugly strong huge lovely yellow tiny \
    odd famous precious beautiful simple pink weird splendid enormous perfect handsome curious awful \
    charming ordinary useless wonderful short round square smooth rough cold clean warm soft hard dear \
    mysterious orange wretched excellent foolish horrible neat nice narrow special rare noble";

/// Adjectives for animals and other people.
pub(super) const CREATURE_ADJECTIVES: &str = "old young little hungry big clever quiet brave tired lazy \
    sleepy happy shy curious wild angry proud friendly thin noisy fat lonely patient cheerful grumpy \
    thirsty nervous gentle clumsy polite greedy rude timid jealous wise small tall ugly strange gloomy \
    bold fierce merry stubborn elegant weary silent cunning famous";

/// Adjectives for places.
pub(super) const PLACE_ADJECTIVES: &str = "old dark little empty cold quiet big narrow sunny dusty \
    distant lonely gloomy wet crowded pleasant ruined new large small silent damp warm deserted beautiful \
    lovely";

/// How a person can feel.
pub(super) const FEELINGS: &str = "tired happy hungry busy sad ready angry cold alone proud afraid calm \
    thirsty sleepy late nervous lucky bored worried pleased lonely curious sick jealous grateful confused \
    awake careful cheerful early impatient silent shy rich famous brave";

/// Degrees of a feeling or a quality.
pub(super) const DEGREES: &str = "very quite too rather so really terribly almost";

/// How something is done; ends a clause.
pub(super) const MANNERS: &str = "slowly quickly again quietly carefully gently alone happily proudly \
    at_once softly as_usual sadly for_hours calmly without_a_word bravely eagerly gracefully in_silence \
    badly secretly all_day_long for_fun noisily nervously for_free in_a_hurry cheerfully all_night \
    angrily gladly for_a_while in_vain";

/// How something is said.
pub(super) const VOICES: &str = "softly loudly angrily kindly politely sternly dreamily";

/// How often; before the verb.
pub(super) const FREQUENCIES: &str = "often always never sometimes rarely usually still";

/// Opens a sentence in the present tense.
pub(super) const NOW: &str = "now today every_morning every_evening this_morning at_noon tonight at_dawn \
    every_day this_week at_midnight every_summer this_afternoon every_sunday";

/// Opens a sentence in the past tense.
pub(super) const THEN: &str = "yesterday last_night last_week last_winter one_day long_ago last_summer \
    an_hour_ago last_year one_evening last_month years_ago";

/// Opens a sentence in the future tense.
pub(super) const LATER: &str =
    "tomorrow next_week soon next_year someday next_spring next_month one_fine_day";

/// Leads from one setting to another.
pub(super) const ELSEWHERE: &str = "meanwhile elsewhere far_away later_that_day not_far_away hours_later";

/// Leads from one person to another of the same setting.
pub(super) const ENTRANCES: &str = "suddenly then finally just_then presently";

/// What a newcomer does; the person who was there follows as a pronoun.
pub(super) const MEETINGS: &str = "join meet/met greet interrupt visit find/found replace";

/// Number words before plurals.
pub(super) const NUMBERS: &str = "two three four five six seven ten eight twelve nine twenty eleven fifty \
    thirty forty sixty a_hundred fifteen ninety eighty thirteen seventy";

/// Other determiners of plurals.
pub(super) const QUANTIFIERS: &str = "some many several most all_the both";

/// Determiners of plurals that open a sentence.
pub(super) const AMOUNTS: &str = "some many several a_few";

/// People whom everybody has, after a possessive.
pub(super) const KIN: &str = "brother friend sister mother father aunt uncle cousin neighbour grandmother \
    daughter son nephew niece grandfather";

/// Verbs of giving.
pub(super) const GIVING: &str = "give/gave show bring/brought send/sent offer promise hand pass \
    throw/threw";

/// Verbs of going.
pub(super) const GOING: &str = "go/goes/went walk run/ran hurry return come/came wander rush";

/// Verbs before an infinitive.
pub(super) const WISHES: &str = "want_to try_to have_to/has_to/had_to like_to need_to \
    begin_to/begins_to/began_to help_to plan_to refuse_to love_to decide_to";

/// Verbs before *that* and a clause.
pub(super) const THOUGHTS: &str = "say/said think/thought know/knew hope believe feel/felt complain \
    notice guess fear pretend suspect";

/// What people do anywhere; intransitive.
pub(super) const PASTIMES: &str = "sleep/slept smile wait laugh rest sit/sat dream cry pause sigh";

/// What creatures do with a person.
pub(super) const DEALINGS: &str =
    "watch follow like help fear know/knew love trust tease annoy greet avoid admire miss";

/// What people feel towards creatures, in relative clauses.
pub(super) const LIKINGS: &str = "like know/knew love fear want hate see/saw hear/heard remember trust";

/// What people and creatures feel towards things, in relative clauses.
pub(super) const NEEDS: &str = "need want like love use miss admire hate";

/// Weather and hours: subject, then verb.
pub(super) const WEATHER: &[(&str, &str)] = &[
    ("sun", "shine/shone"),
    ("wind", "blow/blew"),
    ("rain", "fall/fell"),
    ("night", "come/came"),
    ("snow", "melt"),
    ("moon", "rise/rose"),
    ("fog", "lift"),
    ("storm", "pass"),
    ("thunder", "roll"),
    ("day", "end"),
    ("ice", "break/broke"),
    ("sky", "clear"),
    ("spring", "return"),
    ("frost", "bite/bit"),
];

/// What *it* can be.
pub(super) const IT_IS: &str = "late cold dark early monday warm too_late time_for_lunch winter sunday \
    hot quiet time_to_go";

/// Openers of subordinate clauses before the main clause.
pub(super) const WHEN: &str = "when if before after whenever as_soon_as although";

/// Openers of subordinate clauses after the main clause.
pub(super) const BECAUSE: &str = "because while until since unless";

/// What one exclaims about.
pub(super) const OCCASIONS: &str = "day morning idea night story surprise place mess dream world";

/// How that is.
pub(super) const OCCASION_ADJECTIVES: &str =
    "lovely strange terrible wonderful funny sad beautiful silly long dreadful";

/// Places to be in.
pub(super) const IN: &str = "in_the";

/// Places to be on.
pub(super) const ON: &str = "on_the";

/// Before places of both kinds.
pub(super) const NEAR: &str =
    "near_the by_the behind_the beside_the opposite_the next_to_the above_the below_the";

/// Things to be found everywhere.
pub(super) const THINGS: &str = "box key bag cup hat stone stick ring coat knife/knives boot chair pipe \
    doll ball letter book bell basket toy rug plank brick wheel pin rag coin clock bottle lamp blanket \
    bucket comb flag jar map mug nail pot purse rope sack shoe spoon tin vase whip button kite gift \
    thread cushion ladder candle bone wire mirror";

/// Animals and people to be met everywhere.
pub(super) const CREATURES: &str = "man/men woman/women boy girl dog cat bird baby friend stranger doctor \
    mouse/mice beggar lady rat judge lord tailor nurse priest spider frog crow bee dove fool king lad \
    maid pet hero/heroes";

/// First names of people who only pass by.
pub(super) const NAMES: &str = "maria john peter eva david laura simon julia mark rosa adam sara daniel \
    helen martin sophie jan lena bruno ella karl nina ivan irene luke flora max ada philip agnes noah mia \
    robert stella hans zoe oliver grace erik paula theo june ralph iris boris lily amos kate";

/// Cities.
pub(super) const CITIES: &str = "london paris rome berlin vienna prague lisbon madrid athens dublin oslo \
    venice cairo milan naples geneva bergen porto riga turin bonn nice";
