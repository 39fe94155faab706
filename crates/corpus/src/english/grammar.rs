//! The rules: how the words of the lexicon make sentences, and sentences a text.
//!
//! Each rule is a function that is given the state in which to go on and returns the state in which to begin;
//! so a sentence is built from its end. What must be remembered to the end (number, tense, who is spoken of)
//! is simply an argument, and since clauses nest to a bounded depth, the states are finitely many. The state
//! that outlives a sentence is the [`Scene`]: a setting and the person whom the sentences are about.

use std::cell::RefCell;
use std::collections::HashMap;

use super::lexicon::{self, Action, Gender, Person, TOPICS, Topic};
use super::network::{Builder, ListId, Network, StateId, Step, say, skip};

/// Number and tense of a verb.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    /// she mends
    Singular,
    /// they mend
    Plural,
    /// she mended
    Past,
    /// they mended; differs from [`Form::Past`] in *was* and *were*
    PastPlural,
    /// to mend
    Bare,
}

impl Form {
    fn singular(self) -> Self {
        match self {
            Form::Plural => Form::Singular,
            Form::PastPlural => Form::Past,
            other => other,
        }
    }

    fn plural(self) -> Self {
        match self {
            Form::Singular => Form::Plural,
            Form::Past => Form::PastPlural,
            other => other,
        }
    }

    /// The tense of a clause that depends on one in this form; future clauses have present ones below them.
    fn dependent(self) -> Self {
        match self {
            Form::Past | Form::PastPlural => Form::Past,
            _ => Form::Singular,
        }
    }
}

/// How much more a verb phrase may take: a clause beside it, or nothing but adverbials.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Room {
    Clause,
    Adverbial,
}

/// The setting and the person spoken of; a number in `0..SCENES` that is also the state where its sentences
/// begin.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Scene {
    topic: usize,
    person: usize,
}

const CAST: usize = 3;
const SCENES: usize = TOPICS.len() * CAST;

impl Scene {
    fn start(self) -> StateId {
        (self.topic * CAST + self.person) as StateId
    }

    fn topic(self) -> &'static Topic {
        &TOPICS[self.topic]
    }

    fn person(self) -> &'static Person {
        &self.topic().cast[self.person]
    }

    fn feminine(self) -> bool {
        self.person().gender == Gender::Feminine
    }

    /// she, he
    fn subject(self) -> &'static str {
        if self.feminine() { "she" } else { "he" }
    }

    /// her, him
    fn object(self) -> &'static str {
        if self.feminine() { "her" } else { "him" }
    }

    /// her, his; their where the verb is in the plural
    fn possessive(self, form: Form) -> &'static str {
        match form {
            Form::Plural | Form::PastPlural => "their",
            _ if self.feminine() => "her",
            _ => "his",
        }
    }

    fn role(self) -> String {
        format!("the {}", self.person().role)
    }

    /// anna the captain
    fn introduction(self) -> String {
        format!("{} the {}", self.person().name, self.person().role)
    }
}

/// Builds the network of the whole grammar.
pub(super) fn network() -> Network {
    let rules = Rules {
        builder: RefCell::new(Builder::new(SCENES)),
        lists: RefCell::default(),
        known: RefCell::default(),
    };
    for topic in 0..TOPICS.len() {
        for person in 0..CAST {
            let scene = Scene { topic, person };
            let steps = rules.sentence(scene);
            rules.builder.borrow_mut().start(scene.start(), steps);
        }
    }
    let opening = rules.state((0..TOPICS.len()).map(|topic| rules.setting(topic, 1)));
    rules.builder.into_inner().finish(opening)
}

/// Entries of the lexicon: a setting's own, then common ones that are not among them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Words {
    own: &'static str,
    common: &'static str,
    only_common: bool,
}

impl From<&'static str> for Words {
    fn from(own: &'static str) -> Self {
        Self { own, common: "", only_common: false }
    }
}

impl Words {
    /// Animals and people of a setting.
    fn creatures(topic: &Topic) -> Self {
        Self { own: topic.creatures, common: lexicon::CREATURES, only_common: false }
    }

    /// The objects of an action.
    fn things(topic: &'static Topic, action: usize) -> Self {
        let common = if action == topic.loose { lexicon::THINGS } else { "" };
        Self { own: topic.actions[action].things, common, only_common: false }
    }

    /// Adjectives for them.
    fn qualities(action: &Action) -> Self {
        Self { own: action.qualities, common: lexicon::THING_ADJECTIVES, only_common: false }
    }

    /// Without the own ones.
    fn other(self) -> Self {
        Self { only_common: true, ..self }
    }

    fn entries(self) -> impl Iterator<Item = &'static str> {
        let own = if self.only_common { "" } else { self.own };
        let new = move |word: &&str| self.own.split_whitespace().all(|own| own != *word);
        own.split_whitespace().chain(self.common.split_whitespace().filter(new))
    }
}

/// How entries of the lexicon become words of the text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Shape {
    /// net, mend
    Base,
    /// a net, an oar
    Articled,
    /// nets
    Plural,
    /// mends
    Third,
    /// mended
    Past,
}

/// The builder, and the lists that were already made. (Cells, so that rules can be nested in one expression.)
struct Rules {
    builder: RefCell<Builder>,
    lists: RefCell<HashMap<(Shape, Words), ListId>>,
    /// What the large rules returned for these arguments.
    known: RefCell<HashMap<(Rule, Arguments), StateId>>,
}

/// Scene (its start), form, room, and where to go on.
type Arguments = (StateId, Form, Room, StateId);

/// The rules that are asked for again and again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Rule {
    Deed,
    CreaturePredicate,
    Subordinate,
    Place,
    Tail(bool),
    /// With the index of the action.
    Object(usize),
}

/// Words.
impl Rules {
    fn list(&self, shape: Shape, words: Words) -> ListId {
        let inflect: fn(&str) -> String = match shape {
            Shape::Base => base,
            Shape::Articled => articled,
            Shape::Plural => plural,
            Shape::Third => third_person,
            Shape::Past => past,
        };
        let mut lists = self.lists.borrow_mut();
        *lists
            .entry((shape, words))
            .or_insert_with(|| self.builder.borrow_mut().words(words.entries().map(inflect)))
    }

    /// One word or phrase.
    fn word(&self, weight: u32, phrase: impl Into<String>, next: StateId) -> Step {
        say(weight, self.builder.borrow_mut().words([phrase]), next)
    }

    /// A word as it is in the lexicon: a noun in the singular, an adjective, an adverb.
    fn say(&self, weight: u32, words: impl Into<Words>, next: StateId) -> Step {
        say(weight, self.list(Shape::Base, words.into()), next)
    }

    /// A noun or adjective with its article.
    fn articled(&self, weight: u32, words: impl Into<Words>, next: StateId) -> Step {
        say(weight, self.list(Shape::Articled, words.into()), next)
    }

    /// A noun in the plural.
    fn plural(&self, weight: u32, nouns: impl Into<Words>, next: StateId) -> Step {
        say(weight, self.list(Shape::Plural, nouns.into()), next)
    }

    /// A verb in the given form.
    fn verb(&self, weight: u32, verbs: &'static str, form: Form, next: StateId) -> Step {
        let shape = match form {
            Form::Singular => Shape::Third,
            Form::Plural | Form::Bare => Shape::Base,
            Form::Past | Form::PastPlural => Shape::Past,
        };
        say(weight, self.list(shape, verbs.into()), next)
    }

    /// The verb *be*.
    fn be(&self, weight: u32, form: Form, next: StateId) -> Step {
        let be = match form {
            Form::Singular => "is",
            Form::Plural => "are",
            Form::Past => "was",
            Form::PastPlural => "were",
            Form::Bare => "be",
        };
        self.word(weight, be, next)
    }

    fn state(&self, steps: impl IntoIterator<Item = Step>) -> StateId {
        // Collected first: computing the steps uses the builder.
        let steps = steps.into_iter().collect();
        self.builder.borrow_mut().state(steps)
    }
}

/// Sentences.
impl Rules {
    /// `build()`, or what it returned the last time with these arguments.
    fn once(
        &self,
        rule: Rule,
        (s, form, room, next): (Scene, Form, Room, StateId),
        build: impl FnOnce() -> StateId,
    ) -> StateId {
        let key = (rule, (s.start(), form, room, next));
        let known = self.known.borrow().get(&key).copied();
        known.unwrap_or_else(|| {
            let state = build();
            self.known.borrow_mut().insert(key, state);
            state
        })
    }

    /// Everything that a sentence about `s` can be.
    fn sentence(&self, s: Scene) -> Vec<Step> {
        let main = self.person_clause(s, Form::Singular, Room::Clause);
        let now = self.clause(s, Form::Singular);
        vec![
            skip(64, now),
            self.say(6, lexicon::NOW, now),
            self.say(6, lexicon::THEN, self.clause(s, Form::Past)),
            self.say(4, lexicon::LATER, self.clause(s, Form::Bare)),
            self.say(5, lexicon::WHEN, self.subordinate(s, Form::Singular, main)),
            self.word(2, "outside the", self.outside(s)),
            self.existence(s),
            self.question(s),
            self.request(s),
            self.exclamation(s),
            self.say(5, lexicon::ENTRANCES, self.entrance(s)),
            self.say(6, lexicon::ELSEWHERE, self.elsewhere(s)),
        ]
    }

    /// Another setting; near ones are visited more often.
    fn elsewhere(&self, s: Scene) -> StateId {
        let n = TOPICS.len();
        self.state((1..n).map(|distance| self.setting((s.topic + distance) % n, (n - distance) as u32 + 2)))
    }

    /// *in the harbour anna the captain ...*
    fn setting(&self, topic: usize, weight: u32) -> Step {
        let cast = self.state((0..CAST).map(|person| {
            let s = Scene { topic, person };
            let predicate = self.predicate(s, Form::Singular, Room::Clause);
            self.word(4 - person as u32, s.introduction(), predicate)
        }));
        self.word(weight, TOPICS[topic].scene, cast)
    }

    /// Somebody else of the setting comes: *tom the sailor joins her*.
    fn entrance(&self, s: Scene) -> StateId {
        self.state((0..CAST).filter(|&person| person != s.person).map(|person| {
            let other = Scene { person, ..s };
            let end = self.state([skip(3, other.start()), skip(1, self.place(other, other.start()))]);
            let does = self.state([
                self.verb(2, lexicon::MEETINGS, Form::Singular, self.state([self.word(1, s.object(), end)])),
                self.say(1, "arrives comes_along walks_in appears", end),
            ]);
            self.word(4 - person as u32, other.introduction(), does)
        }))
    }

    /// *outside the wind blows and the gulls rest*
    fn outside(&self, s: Scene) -> StateId {
        let end = s.start();
        let more = self.subordinate(s, Form::Singular, end);
        let more = self.state([skip(2, end), self.word(1, "and", more), self.word(1, "but", more)]);
        self.state([self.weather(1, Form::Singular, more)])
    }

    /// *there are three gulls on the pier*
    fn existence(&self, s: Scene) -> Step {
        let topic = s.topic();
        let place = self.place(s, s.start());
        let many = self.state([
            self.plural(2, Words::creatures(topic), place),
            self.say(
                1,
                lexicon::CREATURE_ADJECTIVES,
                self.state([self.plural(1, Words::creatures(topic), place)]),
            ),
            self.plural(2, Words::things(topic, topic.loose), place),
        ]);
        let one = self.state([
            self.articled(2, Words::creatures(topic), place),
            self.articled(
                1,
                lexicon::CREATURE_ADJECTIVES,
                self.state([self.say(1, Words::creatures(topic), place)]),
            ),
            self.articled(2, Words::things(topic, topic.loose), place),
        ]);
        let are = self.state([self.say(2, lexicon::NUMBERS, many), self.say(1, lexicon::AMOUNTS, many)]);
        self.word(4, "there", self.state([self.word(1, "is", one), self.word(1, "are", are)]))
    }

    /// *where are the oars asks tom*
    fn question(&self, s: Scene) -> Step {
        let tag = self.tag(s, "asks");
        let things = |plural| {
            self.state(s.topic().actions.iter().map(|action| {
                if plural { self.plural(1, action.things, tag) } else { self.say(1, action.things, tag) }
            }))
        };
        let (one, many) = (things(false), things(true));
        let the = |next| self.state([self.say(1, "the my", next)]);
        let be = self.state([self.word(2, "is", the(one)), self.word(1, "are", the(many))]);
        skip(
            3,
            self.state([
                self.word(4, "where", be),
                self.word(2, "who", self.spoken_act(s, Form::Singular, tag)),
                self.say(3, "can_you do_you", self.spoken_act(s, Form::Bare, tag)),
            ]),
        )
    }

    /// *please open the chest says anna*
    fn request(&self, s: Scene) -> Step {
        self.say(2, "please do_not let_us", self.spoken_act(s, Form::Bare, self.tag(s, "says")))
    }

    /// *what a lovely day says tom*
    fn exclamation(&self, s: Scene) -> Step {
        let occasion = self.state([self.say(1, lexicon::OCCASIONS, self.tag(s, "says"))]);
        let what = self.articled(1, lexicon::OCCASION_ADJECTIVES, occasion);
        self.word(1, "what", self.state([what]))
    }

    /// An action in a spoken sentence.
    fn spoken_act(&self, s: Scene, form: Form, tag: StateId) -> StateId {
        self.state(s.topic().actions.iter().map(|action| {
            let noun = self.state([self.say(2, action.things, tag), self.plural(1, action.things, tag)]);
            self.verb(1, action.verbs, form, self.state([self.say(1, "the my your our", noun)]))
        }))
    }

    /// *says anna softly*
    fn tag(&self, s: Scene, verb: &str) -> StateId {
        let end = self.state([skip(4, s.start()), self.say(1, lexicon::VOICES, s.start())]);
        self.state([
            self.word(2, format!("{verb} {}", s.person().name), end),
            self.word(1, format!("{verb} {}", s.role()), end),
            self.word(2, format!("{} {verb}", s.subject()), end),
        ])
    }
}

/// Clauses.
impl Rules {
    /// A main clause about the person or a creature.
    fn clause(&self, s: Scene, form: Form) -> StateId {
        let topic = s.topic();
        let one = self.creature_subject(s, form, false);
        let many = self.creature_subject(s, form, true);
        let after_adjective = self.state([
            self.say(3, Words::creatures(topic), one),
            self.plural(2, Words::creatures(topic), many),
        ]);
        let the = self.state([
            self.word(3, s.person().role, self.person_subject(s, form, Room::Clause)),
            self.say(4, lexicon::CREATURE_ADJECTIVES, after_adjective),
            skip(5, after_adjective),
        ]);
        let one_noun = self.state([self.say(1, Words::creatures(topic), one)]);
        let one_only = self.state([
            self.say(1, lexicon::CREATURE_ADJECTIVES, one_noun),
            self.say(3, Words::creatures(topic), one),
        ]);
        let many_noun = self.state([self.plural(1, Words::creatures(topic), many)]);
        let many_only = self.state([
            self.say(1, lexicon::CREATURE_ADJECTIVES, many_noun),
            self.plural(2, Words::creatures(topic), many),
        ]);
        self.state([
            skip(30, self.person_clause(s, form, Room::Clause)),
            self.word(14, "the", the),
            self.say(5, lexicon::NAMES, self.predicate(s, form, Room::Adverbial)),
            self.articled(3, Words::creatures(topic), one),
            self.articled(3, lexicon::CREATURE_ADJECTIVES, one_noun),
            self.say(1, "another no", one_only),
            self.say(3, lexicon::NUMBERS, many_only),
            self.say(2, lexicon::AMOUNTS, many_only),
        ])
    }

    /// A clause about the person, by pronoun or name, or about somebody close.
    fn person_clause(&self, s: Scene, form: Form, room: Room) -> StateId {
        let kin = self.state([self.say(1, lexicon::KIN, self.predicate(s, form, Room::Adverbial))]);
        self.state([
            self.word(20, s.subject(), self.company(s, form, room)),
            self.word(8, s.person().name, self.person_subject(s, form, room)),
            self.word(3, s.possessive(form), kin),
        ])
    }

    /// What may stand between a name and the predicate: company, or a relative clause (*who is tired*).
    fn person_subject(&self, s: Scene, form: Form, room: Room) -> StateId {
        let company = self.company(s, form, room);
        if room == Room::Adverbial {
            return company;
        }
        let predicate = self.predicate(s, form, room);
        let dependent = form.dependent();
        let creatures = self.state([
            self.plural(2, Words::creatures(s.topic()), predicate),
            self.say(1, Words::creatures(s.topic()), predicate),
        ]);
        let who = self.state([
            self.be(1, dependent, self.state([self.say(1, lexicon::FEELINGS, predicate)])),
            self.verb(1, lexicon::LIKINGS, dependent, self.state([self.word(1, "the", creatures)])),
        ]);
        self.state([skip(16, company), self.word(1, "who", who)])
    }

    /// *and her brother*, perhaps, and a predicate in the right number.
    fn company(&self, s: Scene, form: Form, room: Room) -> StateId {
        let predicate = self.predicate(s, form, room);
        if room == Room::Adverbial {
            return predicate;
        }
        let together = self.predicate(s, form.plural(), Room::Adverbial);
        let kin = self.state([self.say(1, lexicon::KIN, together)]);
        let and = self.state([self.word(1, s.possessive(form), kin), self.say(1, lexicon::NAMES, together)]);
        self.state([skip(14, predicate), self.word(1, "and", and)])
    }

    /// The predicate of the person, with *will* in the future and *often* perhaps in the present.
    fn predicate(&self, s: Scene, form: Form, room: Room) -> StateId {
        let verb_phrase = self.verb_phrase(s, form, room);
        match form {
            Form::Bare => self.state([self.word(1, "will", verb_phrase)]),
            Form::Singular => {
                let deed = self.deed(s, form, room);
                self.state([skip(10, verb_phrase), self.say(1, lexicon::FREQUENCIES, deed)])
            }
            _ => verb_phrase,
        }
    }

    /// What the person does or is.
    fn verb_phrase(&self, s: Scene, form: Form, room: Room) -> StateId {
        let feeling = self.feeling(s, self.coordination(s, form, room));
        self.state([skip(9, self.deed(s, form, room)), self.be(1, form, feeling)])
    }

    /// What the person does.
    fn deed(&self, s: Scene, form: Form, room: Room) -> StateId {
        self.once(Rule::Deed, (s, form, room, s.start()), || {
            let topic = s.topic();
            let tail = self.tail(s, form, room, false);
            let fin = self.coordination(s, form, room);
            let brief = self.tail(s, form, Room::Adverbial, false);
            let kin = |next| self.word(1, s.possessive(form), self.state([self.say(1, lexicon::KIN, next)]));
            let friend = |next| self.say(1, lexicon::NAMES, next);
            let thought = self.subordinate(s, form.dependent(), s.start());
            let thought = self.state([self.word(1, "that", thought)]);
            let going = self.state([
                skip(4, fin),
                self.word(2, "to", self.errand(s)),
                self.word(1, "with", self.state([kin(fin), friend(fin)])),
            ]);
            let goal =
                self.state([self.word(4, "the", self.spot(s, going)), self.say(1, lexicon::CITIES, going)]);
            let gift = self.object(s, topic.loose, form, Room::Adverbial, brief);
            let receiver = self.state([
                kin(gift),
                friend(gift),
                self.word(1, "the", self.state([self.say(1, Words::creatures(topic), gift)])),
            ]);
            let rest = [
                self.verb(4, topic.pastimes, form, tail),
                self.verb(3, lexicon::PASTIMES, form, tail),
                self.verb(5, lexicon::THOUGHTS, form, thought),
                self.verb(7, lexicon::GOING, form, self.state([self.word(1, "to", goal)])),
                self.verb(6, lexicon::WISHES, form, self.errand(s)),
                self.verb(4, lexicon::GIVING, form, receiver),
            ];
            self.state(self.acts(s, form, room).chain(rest))
        })
    }

    /// The actions of the setting with their objects.
    fn acts(&self, s: Scene, form: Form, room: Room) -> impl Iterator<Item = Step> {
        let tail = self.tail(s, form, room, true);
        let actions = s.topic().actions.iter().enumerate();
        actions.map(move |(index, action)| {
            let weight = if index == s.topic().loose { 16 } else { 9 };
            self.verb(weight, action.verbs, form, self.object(s, index, form, room, tail))
        })
    }

    /// *mend the net*, after *to*.
    fn errand(&self, s: Scene) -> StateId {
        self.state(self.acts(s, Form::Bare, Room::Adverbial))
    }

    /// *very tired*, *as hungry as a wolf*
    fn feeling(&self, s: Scene, next: StateId) -> StateId {
        let feeling = self.state([self.say(1, lexicon::FEELINGS, next)]);
        let like = self.state([self.articled(1, Words::creatures(s.topic()), next)]);
        let like = self.state([self.word(1, "as", like)]);
        self.state([
            skip(6, feeling),
            self.say(3, lexicon::DEGREES, feeling),
            self.word(1, "as", self.state([self.say(1, lexicon::FEELINGS, like)])),
        ])
    }

    /// What may follow the core of a predicate: place, manner, perhaps a tool.
    fn tail(&self, s: Scene, form: Form, room: Room, tools: bool) -> StateId {
        let fin = self.coordination(s, form, room);
        self.once(Rule::Tail(tools), (s, form, room, fin), || {
            let tool = self.state([self.say(1, s.topic().tools, fin)]);
            let tool =
                self.state([self.articled(2, s.topic().tools, fin), self.word(1, s.possessive(form), tool)]);
            let mut steps =
                vec![skip(20, fin), skip(9, self.place(s, fin)), self.say(5, lexicon::MANNERS, fin)];
            if tools {
                steps.push(self.word(3, "with", tool));
            }
            self.state(steps)
        })
    }

    /// A second predicate or clause, or the end of the sentence.
    fn coordination(&self, s: Scene, form: Form, room: Room) -> StateId {
        let end = s.start();
        if room == Room::Adverbial {
            return end;
        }
        let second = self.verb_phrase(s, form, Room::Adverbial);
        let one = self.creature_predicate(s, form, Room::Adverbial);
        let many = self.creature_predicate(s, form.plural(), Room::Adverbial);
        let but = self.state([
            self.say(3, Words::creatures(s.topic()), one),
            self.plural(2, Words::creatures(s.topic()), many),
        ]);
        self.state([
            skip(20, end),
            self.word(6, "and", second),
            self.say(4, lexicon::BECAUSE, self.subordinate(s, form.dependent(), end)),
            self.word(2, "but the", but),
        ])
    }

    /// A short dependent clause.
    fn subordinate(&self, s: Scene, form: Form, next: StateId) -> StateId {
        self.once(Rule::Subordinate, (s, form, Room::Adverbial, next), || {
            let creatures = Words::creatures(s.topic());
            let one = self.state([self.verb(1, s.topic().doings, form, next)]);
            let many = self.state([self.verb(1, s.topic().doings, form.plural(), next)]);
            let the =
                [self.weather(3, form, next), self.say(3, creatures, one), self.plural(3, creatures, many)];
            let feeling = self.state([self.say(1, lexicon::FEELINGS, next)]);
            let it_is = self.state([self.say(1, lexicon::IT_IS, next)]);
            let does = self.verb(1, lexicon::PASTIMES, form, next);
            self.state([
                self.word(4, "the", self.state(the)),
                self.word(4, s.subject(), self.state([self.be(2, form, feeling), does])),
                self.word(2, "it", self.state([self.be(1, form, it_is)])),
                self.say(1, "nobody everybody", self.state([does])),
            ])
        })
    }

    /// *sun shines*
    fn weather(&self, weight: u32, form: Form, next: StateId) -> Step {
        let phrases = lexicon::WEATHER.iter().map(|(subject, verb)| {
            let verb = if form == Form::Past { past(verb) } else { third_person(verb) };
            format!("{subject} {verb}")
        });
        say(weight, self.builder.borrow_mut().words(phrases), next)
    }
}

/// Creatures.
impl Rules {
    /// What may stand between a creature and its predicate: *that sleeps on the pier*, *that anna knows*.
    fn creature_subject(&self, s: Scene, form: Form, plural: bool) -> StateId {
        let dependent = form.dependent();
        let (form, dependent) = if plural { (form.plural(), dependent.plural()) } else { (form, dependent) };
        let predicate = self.creature_predicate(s, form, Room::Clause);
        let likes = self.state([self.verb(1, lexicon::LIKINGS, dependent.singular(), predicate)]);
        let that = self.state([
            self.verb(3, s.topic().doings, dependent, self.place(s, predicate)),
            self.word(1, s.role(), likes),
            self.word(1, s.subject(), likes),
            self.word(1, s.person().name, likes),
        ]);
        self.state([skip(5, predicate), self.word(1, "that", that)])
    }

    /// The predicate of creatures, with *will* in the future.
    fn creature_predicate(&self, s: Scene, form: Form, room: Room) -> StateId {
        self.once(Rule::CreaturePredicate, (s, form, room, s.start()), || {
            let deed = self.creature_deed(s, form, room);
            match form {
                Form::Bare => self.state([self.word(1, "will", deed)]),
                _ => deed,
            }
        })
    }

    /// What creatures do or are.
    fn creature_deed(&self, s: Scene, form: Form, room: Room) -> StateId {
        let end = s.start();
        let fin = match room {
            Room::Adverbial => end,
            Room::Clause => {
                let form = form.singular();
                let clause = self.person_clause(s, form, Room::Adverbial);
                self.state([
                    skip(12, end),
                    self.say(3, "and but", clause),
                    self.say(2, lexicon::BECAUSE, self.subordinate(s, form.dependent(), end)),
                ])
            }
        };
        let tail =
            self.state([skip(4, fin), skip(4, self.place(s, fin)), self.say(2, lexicon::MANNERS, fin)]);
        let whom = self.state([
            self.word(3, s.object(), fin),
            self.say(2, lexicon::NAMES, fin),
            self.word(1, s.role(), fin),
            self.word(1, s.person().name, fin),
        ]);
        let quality = self.state([self.say(1, lexicon::CREATURE_ADJECTIVES, fin)]);
        self.state([
            self.verb(5, s.topic().doings, form, tail),
            self.verb(3, lexicon::DEALINGS, form, whom),
            self.be(2, form, self.state([skip(2, quality), self.say(1, lexicon::DEGREES, quality)])),
        ])
    }
}

/// Things and places.
impl Rules {
    /// A thing that something is done to.
    fn object(&self, s: Scene, index: usize, form: Form, room: Room, tail: StateId) -> StateId {
        self.once(Rule::Object(index), (s, form, room, tail), || {
            let action = &s.topic().actions[index];
            let after_one = self.after_object(s, action, form.dependent(), room, tail);
            let after_many = self.after_object(s, action, form.dependent().plural(), room, tail);
            let things = Words::things(s.topic(), index);
            let qualities = Words::qualities(action);
            let one = self.state([self.say(1, things, after_one)]);
            let many = self.state([self.plural(1, things, after_many)]);
            let any = self.state([self.say(5, things, after_one), self.plural(3, things, after_many)]);
            let any = self.state([skip(1, any), self.say(1, qualities, any)]);
            let several = self.state([skip(1, many), self.say(1, qualities, many)]);
            self.state([
                self.word(6, "the", any),
                self.word(3, s.possessive(form), any),
                self.articled(4, things, after_one),
                self.articled(5, qualities, one),
                self.say(3, lexicon::NUMBERS, several),
                self.say(1, lexicon::QUANTIFIERS, several),
            ])
        })
    }

    /// After the thing: a relative clause about it, or a sentence of its own (*it is old and heavy*).
    fn after_object(
        &self,
        s: Scene,
        action: &'static Action,
        form: Form,
        room: Room,
        tail: StateId,
    ) -> StateId {
        if room == Room::Adverbial {
            return tail;
        }
        let end = s.start();
        let creatures = Words::creatures(s.topic());
        let single = form.singular();
        let need = |form| self.state([self.verb(1, lexicon::NEEDS, form, end)]);
        let the = self
            .state([self.say(1, creatures, need(single)), self.plural(1, creatures, need(single.plural()))]);
        let that = self.state([
            self.verb(2, action.staying, form, self.place(s, end)),
            self.word(1, "the", the),
            self.word(1, s.subject(), need(single)),
        ]);
        let other = self.say(1, Words::qualities(action).other(), end);
        let more = self.state([skip(2, end), self.word(1, "and", self.state([other]))]);
        let quality = self.state([self.say(1, action.qualities, more)]);
        let be = self.state([self.be(
            1,
            form,
            self.state([skip(2, quality), self.say(1, lexicon::DEGREES, quality)]),
        )]);
        let it = if form == single { "it" } else { "they" };
        self.state([skip(16, tail), self.word(2, "that", that), self.word(2, it, be)])
    }

    /// *on the old pier*
    fn place(&self, s: Scene, next: StateId) -> StateId {
        self.once(Rule::Place, (s, Form::Bare, Room::Adverbial, next), || {
            let within = |places| {
                let noun = self.state([self.say(1, places, next)]);
                self.state([skip(3, noun), self.say(2, lexicon::PLACE_ADJECTIVES, noun)])
            };
            self.state([
                self.say(4, lexicon::IN, within(s.topic().inside)),
                self.say(4, lexicon::ON, within(s.topic().upon)),
                self.say(5, lexicon::NEAR, self.spot(s, next)),
            ])
        })
    }

    /// *old pier*
    fn spot(&self, s: Scene, next: StateId) -> StateId {
        let noun = self.state([self.say(1, s.topic().inside, next), self.say(1, s.topic().upon, next)]);
        self.state([skip(3, noun), self.say(2, lexicon::PLACE_ADJECTIVES, noun)])
    }
}

/// An entry as it is, `_` as space, without irregular forms.
fn base(entry: &str) -> String {
    spaced(entry.split('/').next().unwrap_or_default())
}

fn spaced(entry: &str) -> String {
    entry.replace('_', " ")
}

/// With *a* or *an*.
fn articled(entry: &str) -> String {
    let word = base(entry);
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    // Words that are spelt with a vowel but not spoken with one.
    let exception = ["useful", "useless", "unicorn"].contains(&word.as_str());
    format!("{} {word}", if vowel && !exception { "an" } else { "a" })
}

/// net, nets; fox, foxes; berry, berries; wolf/wolves
fn plural(entry: &str) -> String {
    match entry.split_once('/') {
        Some((_, irregular)) => spaced(irregular),
        None => with_s(entry),
    }
}

/// mend, mends; have_to/has_to/had_to
fn third_person(entry: &str) -> String {
    let mut parts = entry.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (_, Some(third), Some(_)) => spaced(third),
        (Some(base), _, _) => inflect_first(base, with_s),
        (None, _, _) => String::new(),
    }
}

/// mend, mended; catch/caught
fn past(entry: &str) -> String {
    let mut parts = entry.rsplit('/');
    match (parts.next(), parts.next()) {
        (Some(past), Some(_)) => spaced(past),
        _ => inflect_first(entry, with_ed),
    }
}

fn inflect_first(entry: &str, inflect: fn(&str) -> String) -> String {
    match entry.split_once('_') {
        Some((verb, rest)) => format!("{} {}", inflect(verb), spaced(rest)),
        None => inflect(entry),
    }
}

fn with_s(word: &str) -> String {
    if let Some(stem) = consonant_y(word) {
        format!("{stem}ies")
    } else if ["s", "x", "z", "ch", "sh"].iter().any(|end| word.ends_with(end)) {
        format!("{word}es")
    } else {
        format!("{word}s")
    }
}

fn with_ed(word: &str) -> String {
    if let Some(stem) = consonant_y(word) {
        format!("{stem}ied")
    } else if word.ends_with('e') {
        format!("{word}d")
    } else {
        format!("{word}ed")
    }
}

/// The stem of a word that ends in y after a consonant.
fn consonant_y(word: &str) -> Option<&str> {
    let stem = word.strip_suffix('y')?;
    (!stem.ends_with(['a', 'e', 'i', 'o', 'u'])).then_some(stem)
}
