//! The page in a browser: what a reader gets, wide and narrow, light and dark.
//!
//! Headless Chromium opens one page of ours that holds the pages of `examples/pages.rs` in frames, each once as wide as a
//! desk's screen and once as wide as a telephone's; a script looks at all of them and writes down what it finds. So two
//! starts of the browser, one light and one dark, are enough. Chromium is Debian's `chromium`, or CHROMIUM names another
//! of its kind. Without one these tests fail, unless they are left out by name.

#[allow(dead_code)]
#[path = "../examples/pages.rs"]
mod pages;

use scraper::{Html, Selector};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set this to leave the tests out.
const SKIP: &str = "DIAPASON_SKIP_BROWSER_TESTS";

const PAGES: [&str; 4] = ["many", "markup", "running", "halved"];
const WIDTHS: [u64; 2] = [1280, 400];

/// Looks at every frame when all are there, and writes what it finds.
const LOOK: &str = r##"
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 2 || b.bottom <= a.top + 2;
const look = (frame) => {
  const view = frame.contentWindow, page = frame.contentDocument;
  const style = (element) => view.getComputedStyle(element);
  const shown = (element) => element.getClientRects().length > 0;
  const found = { page: frame.dataset.page, width: frame.clientWidth };
  found.title = page.title;
  found.heading = page.querySelector("h1").textContent;
  found.images = page.querySelectorAll("img, h1 b, iframe, object").length;
  found.overflow = page.documentElement.scrollWidth - page.documentElement.clientWidth;
  found.figures = [...page.querySelectorAll("figure")].map((figure) => figure.className);
  found.curves = [...page.querySelectorAll("polyline.curve")].filter(shown).length;
  found.crosses = [...page.querySelectorAll("path.end")].filter((end) => !end.closest(".key") && shown(end)).length;
  const plots = [...page.querySelectorAll("figure > svg")];
  found.empty = plots.filter((svg) => svg.getBoundingClientRect().width < 200).length;
  const back = style(page.body).backgroundColor;
  found.dark = luminance(back) < 0.2;
  const words = [...page.querySelectorAll("body, .subject, summary, figcaption, td, th, dt, svg text")].filter(shown);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = style(at).backgroundColor;
      if (/^rgb\(/.test(colour)) return colour;
    }
    return back;
  };
  found.faint = words.map((word) => {
    const svg = word.ownerSVGElement;
    const colour = style(word)[svg ? "fill" : "color"];
    return [contrast(colour, svg ? back : behind(word)), word.textContent.slice(0, 40)];
  }).filter(([contrast]) => contrast < 4.5);
  found.outside = [];
  found.overlaps = [];
  for (const svg of plots) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].filter(shown).map((text) => [text, text.getBoundingClientRect()]);
    for (const [text, box] of texts) {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) {
        found.outside.push(text.textContent);
      }
    }
    texts.forEach(([a, boxA], i) => texts.slice(i + 1).forEach(([b, boxB]) => {
      if (!apart(boxA, boxB)) found.overlaps.push(`${a.textContent} / ${b.textContent}`);
    }));
  }
  const line = page.querySelector("figure.curves > svg .lin polyline:last-of-type");
  const point = () => {
    const [x, y] = line.getAttribute("points").split(" ").at(-2).split(",").map(Number);
    const at = new view.DOMPoint(x, y).matrixTransform(line.getScreenCTM());
    line.dispatchEvent(new view.PointerEvent("pointerdown", { clientX: at.x, clientY: at.y, bubbles: true }));
  };
  point();
  const tip = page.querySelector(".tip");
  found.tip = tip.hidden ? "" : tip.textContent;
  const box = tip.getBoundingClientRect();
  found.tipInside = box.left >= 0 && box.right <= view.innerWidth;
  page.getElementById("logarithmic").click();
  found.logarithmic = [...page.querySelectorAll("figure.curves g")].filter(shown).filter((g) => /^(lin|log)$/.test(g.getAttribute("class")))
    .map((g) => g.getAttribute("class"));
  return found;
};
addEventListener("load", () => {
  const all = [...document.querySelectorAll("iframe")].map((frame) => {
    try { return look(frame); } catch (error) { return { page: frame.dataset.page, error: String(error) }; }
  });
  document.getElementById("findings").textContent = JSON.stringify(all);
});
"##;

fn browser() -> Option<PathBuf> {
    if std::env::var_os(SKIP).is_some() {
        return None;
    }
    if let Some(program) = std::env::var_os("CHROMIUM") {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let of_folder = |folder: PathBuf| {
        ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name)).into_iter()
    };
    let found = std::env::split_paths(&path).flat_map(of_folder).find(|program| program.is_file());
    assert!(
        found.is_some(),
        "no Chromium is installed, which these tests start: apt-get install chromium, or set {SKIP}=1"
    );
    found
}

/// What the script finds in each frame, and what any page says to the console.
fn findings(browser: &Path, dark: bool) -> (Vec<Json>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    pages::pages(&folder.path().join("pages")).unwrap();
    let frames = WIDTHS.iter().flat_map(|width| {
        PAGES.iter().map(move |page| {
            format!(
                "<iframe data-page=\"{page}\" src=\"pages/{page}.html\" style=\"width:{width}px;height:4000px;border:0\"></iframe>"
            )
        })
    });
    let harness = folder.path().join("harness.html");
    let frames: String = frames.collect();
    std::fs::write(
        &harness,
        format!(
            "<!DOCTYPE html><link rel=\"icon\" href=\"data:,\"><pre id=\"findings\"></pre>{frames}<script>{LOOK}</script>"
        ),
    )
    .unwrap();
    let done = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--allow-file-access-from-files", "--enable-logging=stderr", "--virtual-time-budget=3000"])
        .arg(format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 }))
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", harness.display()))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    let page = Html::parse_document(&String::from_utf8_lossy(&done.stdout));
    let found = page.select(&Selector::parse("#findings").unwrap()).next();
    let found: String = found.unwrap_or_else(|| panic!("no page: {told}")).text().collect();
    let console = told.lines().filter(|line| line.contains("CONSOLE")).map(str::to_string).collect();
    (serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found:?}: {told}")), console)
}

fn check(dark: bool) {
    let Some(browser) = browser() else { return };
    let (found, console) = findings(&browser, dark);
    assert_eq!(console, Vec::<String>::new());
    assert_eq!(found.len(), PAGES.len() * WIDTHS.len());
    for one in found {
        let (page, width) = (one["page"].as_str().unwrap(), one["width"].as_u64());
        let at = format!("{page} at {width:?}: {one}");
        assert!(one.get("error").is_none(), "{at}");
        assert_eq!(one["dark"], dark, "{at}");
        // Nothing makes the page wider than the screen, and every letter can be read.
        assert_eq!(one["overflow"], 0, "{at}");
        for faults in ["faint", "outside", "overlaps"] {
            assert_eq!(one[faults], serde_json::json!([]), "{faults}: {at}");
        }
        assert_eq!((&one["empty"], &one["images"]), (&0.into(), &0.into()), "{at}");
        let trials = match page {
            "many" => 200,
            "markup" => 12,
            "halved" => 9,
            _ => 5,
        };
        // By step and by time.
        assert_eq!(one["curves"], 2 * trials, "{at}");
        assert_eq!(one["crosses"], if page == "halved" { 2 * 8 } else { 0 }, "{at}");
        let figures = match page {
            "many" => vec!["curves", "curves", "pareto", "differences", "fit"],
            "markup" => vec!["curves", "curves", "pareto", "differences", "map", "fit", "sample"],
            "halved" => vec!["curves", "curves", "map"],
            _ => vec!["curves", "curves", "pareto"],
        };
        assert_eq!(one["figures"], serde_json::json!(figures), "{at}");
        let name = if page == "markup" { pages::MARKUP } else { one["heading"].as_str().unwrap() };
        assert_eq!(one["heading"], name, "{at}");
        assert_eq!(one["title"], format!("{name}: a study of Diapason"), "{at}");
        // A finger on a curve says its value, inside of the screen; a click changes both plots' axes.
        let tip = one["tip"].as_str().unwrap();
        assert!(tip.contains(": loss ") && tip.contains(" at step ") && one["tipInside"] == true, "{at}");
        assert_eq!(one["logarithmic"], serde_json::json!(["log", "log"]), "{at}");
    }
}

#[test]
fn light() {
    check(false);
}

#[test]
fn dark() {
    check(true);
}
