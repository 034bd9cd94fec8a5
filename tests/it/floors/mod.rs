//! The source is held against the floors that are drawn in `src/lib.rs`: a module uses its own floor and those beneath it, and no
//! modules use each other in a circle.
//!
//! What counts is the paths in the code that is shipped (`source.rs`), so what a file asks of others by name; a method that is
//! called on a value isn't seen.

mod drawing;
mod source;

use std::fs;

use self::{
    drawing::Drawing,
    source::{Arrow, House},
};

/// What the tape is not to know, though it stands beneath: it holds bytes and positions.
const WORDS: &[&str] = &["http", "protocol", "websocket"];

/// The floors within the worker. `mod` is `worker/mod.rs`.
const WORKER: &str = "
 6  mod
 5  desk
 4  cursors
 3  fan
 2  deliver
 1  connections, ground
 0  connection, cursor, out, standing, timers, work
";

fn shipped() -> House {
    House::read(&format!("{}/src", env!("CARGO_MANIFEST_DIR")))
}

fn drawn() -> Drawing {
    let essay = fs::read_to_string(format!("{}/src/lib.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let lines = essay.lines().filter_map(|line| line.strip_prefix("//!"));
    let block = lines.skip_while(|line| line.trim() != "```text").skip(1).take_while(|line| line.trim() != "```");
    Drawing::parse(&block.collect::<Vec<_>>().join("\n"))
}

/// Modules of which only one of both knows.
fn strangers(drawing: &Drawing, house: &House, room: &[&str]) -> Vec<String> {
    let (there, drawn) = (house.inside(room), drawing.names());
    let missing = there.difference(&drawn).map(|name| format!("{name} stands on no floor"));
    missing.chain(drawn.difference(&there).map(|name| format!("{name} is drawn and not there"))).collect()
}

/// Arrows within a room that go up, as file, line and both floors.
fn climbing<'a>(drawing: &Drawing, arrows: &'a [Arrow]) -> Vec<(&'a Arrow, String)> {
    let up = |arrow: &&Arrow| match (drawing.floor(&arrow.from), drawing.floor(&arrow.to)) {
        (Some(from), Some(to)) => from < to,
        _ => false,
    };
    let say = |arrow: &'a Arrow| {
        let floor = |name: &str| drawing.floor(name).map_or("?".to_owned(), |floor| floor.to_string());
        let (from, to) = (floor(&arrow.from), floor(&arrow.to));
        let said = format!("{}: {} (floor {from}) uses {} (floor {to})", arrow.place, arrow.from, arrow.to);
        (arrow, said)
    };
    arrows.iter().filter(up).map(say).collect()
}

#[test]
fn every_module_stands_on_a_floor_and_no_other_is_drawn() {
    let wrong = strangers(&drawn(), &shipped(), &[]);
    assert!(wrong.is_empty(), "src/lib.rs draws the floors: {wrong:#?}");
}

#[test]
fn no_module_uses_what_stands_above_it() {
    let (drawing, arrows) = (drawn(), shipped().arrows(&[]));
    assert!(arrows.len() > 300, "{} arrows are too few to be all", arrows.len());
    let wrong: Vec<_> = climbing(&drawing, &arrows).into_iter().map(|(_, said)| said).collect();
    assert!(wrong.is_empty(), "a module uses its own floor and those beneath it (src/lib.rs): {wrong:#?}");
}

#[test]
fn the_tape_knows_no_words() {
    let arrows = shipped().arrows(&[]);
    let is_word = |arrow: &&Arrow| arrow.from == "tape" && WORDS.contains(&&*arrow.to);
    let wrong: Vec<_> = arrows.iter().filter(is_word).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let circles = source::circles(&shipped().arrows(&[]));
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_workers_parts_use_each_other_in_no_circle() {
    let arrows: Vec<Arrow> =
        shipped().arrows(&["worker"]).into_iter().filter(|arrow| arrow.is_between_files()).collect();
    let circles = source::circles(&arrows);
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_worker_is_built_as_it_is_drawn() {
    let (drawing, house) = (Drawing::parse(WORKER), shipped());
    let arrows = house.arrows(&["worker"]);
    let mut wrong = strangers(&drawing, &house, &["worker"]);
    wrong.extend(climbing(&drawing, &arrows).into_iter().map(|(_, said)| said));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_arrow_up_is_told_with_its_file_its_line_and_both_floors() {
    let drawing = Drawing::parse(" 2  top, side    what it is\n     more        and this\n 0  ground");
    assert_eq!([drawing.floor("more"), drawing.floor("ground"), drawing.floor("what")], [Some(2), Some(0), None]);
    let house = House::of(&[
        ("lib.rs", "mod ground; mod top; mod side; mod cellar;"),
        ("top.rs", "use crate::{ground::Stone, side};"),
        ("ground.rs", "pub struct Stone;\n\nfn f() -> crate::top::Roof { g(1) }"),
        ("side.rs", ""),
        ("cellar.rs", ""),
    ]);
    let arrows = house.arrows(&[]);
    let said: Vec<String> = climbing(&drawing, &arrows).into_iter().map(|(_, said)| said).collect();
    assert_eq!(said, ["ground.rs:3: ground (floor 0) uses top (floor 2)"]);
    assert_eq!(strangers(&drawing, &house, &[]), ["cellar stands on no floor", "more is drawn and not there"]);
    let circles = source::circles(&arrows);
    assert_eq!(circles.len(), 1, "{circles:?}");
    assert_eq!(circles[0].names, ["ground", "top"]);
}
