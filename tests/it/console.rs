//! The console as people meet it, in a real browser.

use stentor::{
    Payload,
    config::{Rate, Span},
    server::Server,
};

use crate::{
    browser::Browser,
    client::{Client, serve},
    link::Link,
    process::Running,
};

/// A window on a desk, and a phone.
const WIDE: u32 = 1300;
const NARROW: u32 = 390;

/// The value cell of the row of a topic.
const VALUE: &str = "const value = name => [...document.querySelectorAll('#rows .row:not([hidden])')]\
    .find(row => row.children[0].textContent === name)?.children[1].textContent";

fn open(server: &Server, width: u32) -> Option<Browser> {
    Browser::open(width, &format!("http://{}/", server.addresses()[0]))
}

fn shown(browser: &mut Browser, topic: &str, has: &str) -> String {
    browser.wait_for(&format!(
        "() => {{ {VALUE}; const text = value('{topic}'); return text?.includes('{has}') && text; }}"
    ))
}

#[test]
fn the_page_shows_moving_quotes_and_draws_one() {
    let server = serve(|config| config.demo = true);
    let Some(mut browser) = open(&server, WIDE) else { return };
    // A quote that was seen with one value and then with another.
    let moved = browser.wait_for(
        "(() => { const seen = new Map(); return () => { \
         for (const row of document.querySelectorAll('#rows .row')) { \
           const [name, value] = [row.children[0].textContent, row.children[1].textContent]; \
           if (name.startsWith('q.demo.') && seen.has(name) && seen.get(name) !== value) return name; \
           seen.set(name, value); } } })()",
    );
    assert!(moved.starts_with("q.demo."), "{moved}");
    // Without anybody's doing there is a chart, of a topic that moves, and it says in words what it shows.
    let chart = "document.getElementById('chart')";
    let said =
        browser.wait_for(&format!("() => {{ const said = {chart}.ariaLabel; return / now /.test(said) && said; }}"));
    assert!(said.contains(" of ") && said.contains(".demo."), "{said}");
    let ink = format!(
        "(() => {{ const pen = {chart}.getContext('2d'); \
         return pen.getImageData(0, 0, {chart}.width, {chart}.height).data.filter((v, n) => n % 4 === 3 && v > 200).length; }})()"
    );
    assert!(browser.evaluate(&ink).parse::<u32>().unwrap() > 100, "there is a line");
    // The figures of the server are read from /metrics.
    browser.wait_for_text(".gauge:nth-child(2) strong", "parseFloat(text) > 0");
    browser.wait_for_text(".gauge:nth-child(3) strong", "parseFloat(text) > 0");
    // For how long the tape would hold this, long before it is full.
    browser.wait_for_text(".gauge:nth-child(8) strong", "/^[1-9][0-9.]* (s|min|h)$/.test(text)");
    browser
        .wait_for_text(".gauge:nth-child(8) small", "/^at least, at this rate; now .+, [0-9]+\\s% full$/.test(text)");
    browser.assert_clean();
}

#[test]
fn what_one_publishes_is_shown_as_text() {
    let server = serve(|_| ());
    let Some(mut browser) = open(&server, WIDE) else { return };
    let hint = browser.wait_for_text("#empty", "/Nothing has been published/.test(text)");
    assert!(hint.contains("curl -d") && hint.contains("--demo"), "{hint}");
    assert_eq!(browser.wait_for_text(".gauge:nth-child(8) strong", "text"), "–", "at no rate there is nothing to say");
    // With the keyboard alone.
    browser.evaluate("document.getElementById('to').focus()");
    browser.type_over("to", "aaa.news");
    browser.evaluate("document.getElementById('data').focus()");
    browser.type_over("data", r#"{"text": "<img src=x onerror=document.title='run'>", "px": 1.25}"#);
    browser.evaluate("document.querySelector('#publish button').focus()");
    browser.press("Enter");
    assert_eq!(browser.wait_for_text("#published", "text"), "Published: message 1 of aaa.news.");
    let text = shown(&mut browser, "aaa.news", "1.25");
    assert!(text.contains("<img src=x"), "data is shown as text: {text}");
    assert_eq!(browser.evaluate("document.images.length"), "0");
    // What changes is marked, with its direction.
    server.publisher().publish("aaa.news", Payload::Json(br#"{"text": "", "px": 1.5}"#)).unwrap();
    browser.wait_for("() => document.querySelector('#rows .up.changed')?.textContent === '1.5'");
    browser.evaluate("document.getElementById('data').focus()");
    browser.type_over("data", "{px}");
    browser.evaluate("document.querySelector('#publish button').click()");
    browser.wait_for_text("#published", "/is not JSON/.test(text)");
    browser.assert_clean();
}

#[test]
fn numbers_are_shown_with_the_digits_that_were_published() {
    let server = serve(|_| ());
    let texts = [
        r#"{"id":12345678901234567890,"ts_ns":1723161253937085768}"#,
        r#"{"px":100.10,"p":1e400,"q":-0.0}"#,
        "8389766145050669870",
    ];
    for (nth, text) in texts.iter().enumerate() {
        server.publisher().publish(&format!("a.{nth}"), Payload::Json(text.as_bytes())).unwrap();
    }
    let Some(mut browser) = open(&server, WIDE) else { return };
    shown(&mut browser, "a.0", "id12345678901234567890ts_ns1723161253937085768");
    shown(&mut browser, "a.1", "px100.10p1e400q-0.0");
    shown(&mut browser, "a.2", "8389766145050669870");
    browser.evaluate("document.getElementById('topics').focus()");
    for text in texts {
        browser.press("ArrowDown");
        browser.wait_for_text("#payload", &format!("text === {text:?}"));
    }
    // The line is drawn of doubles, and says what was published all the same.
    let said = "document.getElementById('chart').ariaLabel";
    browser.wait_for(&format!(
        "() => /a.2 over time: now 8389766145050669870, between 8389766145050669870 and/.test({said})"
    ));
    browser.press("ArrowUp");
    browser.wait_for(&format!("() => /px of a.1 over time: now 100.10, between/.test({said})"));
    // Nor is it rounded when it comes by an update.
    server.publisher().publish("a.1", Payload::Json(br#"{"px":100.20,"p":9007199254740993,"q":0}"#)).unwrap();
    shown(&mut browser, "a.1", "px100.20p9007199254740993q0");
    browser.assert_clean();
}

#[test]
fn no_number_is_cut_and_what_is_left_out_is_marked_and_told() {
    let server = serve(|_| ());
    let long = r#"{"bid_price":100.25,"ask_price":100.50,"bid_size":1200,"ask_size":123456789,"last_price":100.25,"last_size":1}"#;
    let short = r#"{"bid":1,"ask":2}"#;
    let text = format!("{:?}", "text ".repeat(60));
    for (name, data) in [("a.long", long), ("a.short", short), ("a.text", &text)] {
        server.publisher().publish(name, Payload::Json(data.as_bytes())).unwrap();
    }
    let Some(mut browser) = open(&server, 1280) else { return };
    shown(&mut browser, "a.text", "text");
    let cells = "const cell = name => [...document.querySelectorAll('#rows .row:not([hidden])')]\
        .find(row => row.children[0].textContent === name).children[1]; \
        const is = one => one.checkVisibility({ visibilityProperty: true }) ? 'shown' : 'out'; \
        const fields = name => [...cell(name).querySelectorAll('span')]; \
        const inside = name => fields(name).filter(one => is(one) === 'shown') \
            .every(one => one.getBoundingClientRect().right <= cell(name).getBoundingClientRect().right + 0.5); \
        const mark = name => is(cell(name).querySelector('em'));";
    let ask = |expression: &str| format!("() => {{ {cells} return {expression}; }}");
    browser.wait_for(&ask(
        "inside('a.long') && mark('a.long') === 'shown' && fields('a.long').some(one => is(one) === 'out')",
    ));
    browser.wait_for(&ask("fields('a.short').every(one => is(one) === 'shown') && mark('a.short') === 'out'"));
    browser.wait_for(&ask("inside('a.text') && getComputedStyle(fields('a.text')[0]).textOverflow === 'ellipsis'"));
    let over = "document.querySelector('#rows .row').dispatchEvent(new PointerEvent('pointerover', { bubbles: true }))";
    browser.evaluate(over);
    browser.wait_for(&ask(&format!("cell('a.long').title === {long:?}")));
    // A longer number in the same field is not cut either.
    let grown = long.replace("100.25", "100.2512345678901");
    server.publisher().publish("a.long", Payload::Json(grown.as_bytes())).unwrap();
    shown(&mut browser, "a.long", "100.2512345678901");
    browser.wait_for(&ask("inside('a.long') && mark('a.long') === 'shown'"));
    browser.assert_clean();
}

#[test]
fn nothing_of_a_letter_is_cut_off_in_the_table() {
    let server = serve(|_| ());
    let publish = |topic: &str, data: &str| server.publisher().publish(topic, Payload::Json(data.as_bytes())).unwrap();
    publish("g_.jpq_", r#"{"_gjpq_":"_gjpq_ÁÅ(","b":1}"#);
    for width in [1280, NARROW] {
        let Some(mut browser) = open(&server, width) else { return };
        shown(&mut browser, "g_.jpq_", "_gjpq_");
        // Where the ink of each text is, by its base line and its font, and where it ends in all that cuts off what is beyond.
        let cut = "(() => { const pen = document.createElement('canvas').getContext('2d'); const cut = []; \
            for (const one of document.querySelectorAll('#rows .row:not([hidden]) :is(.name, .number, b, i)')) { \
              if (!one.checkVisibility()) continue; \
              const probe = document.createElement('span'); \
              Object.assign(probe.style, { display: 'inline-block', width: '0', height: '0' }); \
              const text = one.textContent; one.prepend(probe); const base = probe.getBoundingClientRect().bottom; probe.remove(); \
              pen.font = getComputedStyle(one).font; const ink = pen.measureText(text); \
              for (let around = one; around.id !== 'rows'; around = around.parentElement) { \
                if (getComputedStyle(around).overflow === 'visible') continue; \
                const { top, bottom } = around.getBoundingClientRect(); \
                if (base - ink.actualBoundingBoxAscent < top - 0.5 || base + ink.actualBoundingBoxDescent > bottom + 0.5) cut.push(text); \
              } } \
            return cut.join(); })()";
        assert_eq!(browser.evaluate(cut), "", "at {width} pixels");
        browser.assert_clean();
    }
}

#[test]
fn no_label_of_a_chart_is_cut_or_lies_over_another_or_over_the_line() {
    let server = serve(|_| ());
    let Some(mut browser) = open(&server, WIDE) else { return };
    let jagged: Vec<String> = (0..40).map(|n| format!("{{\"px\":{}.{:02}}}", 100 + n * 7 % 13, n)).collect();
    let steady = vec!["8389766145050669870".to_owned(); 20];
    let tiny: Vec<String> = (0..110).map(|n| format!("{{\"p\":{}e-12}}", n % 3 - 1)).collect();
    let long: Vec<String> =
        (0..15).map(|n| format!("123456789012345678901234567890.{}12345678901234567890", n % 7)).collect();
    let falling: Vec<String> = (0..60).map(|n| format!("[{}]", -n * n)).collect();
    for (json, width) in [&jagged, &steady, &tiny, &long, &falling].into_iter().flat_map(|one| [(one, 420), (one, 280)])
    {
        let asked = serde_json::json!({ "json": json, "width": width });
        let found =
            browser.evaluate(&format!("({})({asked})", include_str!("../js/labels.js").trim().trim_end_matches(';')));
        assert_eq!(found, "", "{} at {width} pixels", json[1]);
    }
    browser.assert_clean();
}

#[test]
fn where_nothing_is_known_no_line_is_drawn_not_even_at_zero() {
    let server = serve(|_| ());
    let Some(mut browser) = open(&server, WIDE) else { return };
    let ink = |nth: u32| {
        format!(
            "(() => {{ const canvas = document.querySelector('.gauge:nth-child({nth}) canvas'); \
             return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(one => one > 0); }})()"
        )
    };
    // A subscriber there is, and a line of it; nothing was sent to anybody, so there is no time that it took.
    browser.wait_for(&format!("() => {}", ink(1)));
    let scrapes = "performance.getEntriesByType('resource').filter(one => one.name.endsWith('/metrics')).length";
    browser.wait_for(&format!("() => {scrapes} > 4"));
    assert_eq!(browser.wait_for_text(".gauge:nth-child(6) strong", "text"), "–");
    assert_eq!(browser.evaluate(&ink(6)), "false");
    browser.assert_clean();
}

#[test]
fn fields_whose_keys_have_dots_are_told_from_those_further_down() {
    let server = serve(|_| ());
    let data = r#"{"a.b":1.10,"a":{"b":2.20,"":{"c":3.30}},"a\"":{"b":4.40}}"#;
    server.publisher().publish("a", Payload::Json(data.as_bytes())).unwrap();
    let Some(mut browser) = open(&server, WIDE) else { return };
    shown(&mut browser, "a", "1.10");
    browser.evaluate("document.getElementById('topics').focus()");
    browser.press("ArrowDown");
    let said = "document.getElementById('chart').ariaLabel";
    for (field, value) in [(r#""a.b""#, "1.10"), ("a.b", "2.20"), (r#"a."".c"#, "3.30"), (r#""a\"".b"#, "4.40")] {
        browser.evaluate(&format!(
            "(() => {{ const select = document.getElementById('field'); select.value = {field:?}; \
             select.dispatchEvent(new Event('change')); }})()"
        ));
        let expected = format!("{field} of a over time: now {value}, between {value} and {value}");
        browser.wait_for(&format!("() => {said} === {expected:?}"));
    }
    browser.assert_clean();
}

#[test]
fn a_name_that_an_address_would_lose_is_refused_before_it_is_sent() {
    let server = serve(|_| ());
    let Some(mut browser) = open(&server, WIDE) else { return };
    for (name, at) in [("..", 0), (".", 0), ("a..b", 2), ("a.", 2)] {
        browser.type_over("to", name);
        browser.evaluate("document.querySelector('#publish button').click()");
        browser.wait_for_text(
            "#published",
            &format!("/^Not published: Not a topic: an empty segment at byte {at}:/.test(text)"),
        );
    }
    browser.type_over("to", "a/b");
    browser.evaluate("document.querySelector('#publish button').click()");
    browser.wait_for_text("#published", "/^Not published: .*at byte 1/.test(text)");
    browser.assert_clean();
}

#[test]
fn a_topic_that_is_gone_leaves_the_panel_or_is_said_to_be_gone() {
    for chosen_by_hand in [false, true] {
        let first = Running::listen("127.0.0.1:0", &[]);
        let address = first.address.clone();
        let Some(mut browser) = Browser::open(WIDE, &format!("http://{address}/")) else { return };
        browser.wait_for_text("#events", "/Subscribed to/.test(text)");
        let publish = |browser: &mut Browser, topic: &str| {
            browser.evaluate(&format!(
                "fetch('publish/{topic}?as=json', {{ method: 'POST', body: '7' }}).then(it => it.status)"
            ));
        };
        publish(&mut browser, "old.topic");
        if chosen_by_hand {
            shown(&mut browser, "old.topic", "7");
            browser.evaluate("document.getElementById('topics').focus()");
            browser.press("ArrowDown");
        }
        browser.wait_for_text("#facts", "/^message 1 at/.test(text)");
        drop(first);
        browser.wait_for_text("#state", "text === 'Connection lost'");
        let _second = Running::listen(&address, &[]);
        browser.evaluate("document.getElementById('again').click()");
        browser.wait_for_text("#state", "text === 'Connected'");
        browser.wait_for_text("#chosen-help", "/^The server has no such topic any more/.test(text)");
        assert_eq!(browser.evaluate("document.getElementById('payload').hidden"), "true");
        assert_eq!(browser.evaluate("document.getElementById('facts').textContent"), "");
        publish(&mut browser, "new.topic");
        if chosen_by_hand {
            shown(&mut browser, "new.topic", "7");
            assert_eq!(browser.evaluate("document.getElementById('chosen-title').textContent"), "old.topic");
        } else {
            browser.wait_for_text("#chosen-title", "text === 'new.topic'");
            browser.wait_for_text("#payload", "text === '7'");
        }
        browser.assert_clean();
    }
}

#[test]
fn at_1280_pixels_and_on_a_phone_the_demo_is_seen_whole() {
    let server = serve(|config| config.demo = true);
    for width in [1280, 400] {
        let Some(mut browser) = open(&server, width) else { return };
        browser.wait_for("() => document.querySelectorAll('#rows .row:not([hidden]) .value span').length > 40");
        browser.wait_for("() => [...document.querySelectorAll('#rows .row:not([hidden])')].slice(0, 10) \
            .every(row => row.querySelectorAll('span.value span').length && !row.querySelector('.out, .alone') && row.querySelector('em').hidden)");
        browser.assert_clean();
    }
}

#[test]
fn a_wrong_token_is_told_where_it_was_given_and_takes_nothing_away() {
    let server = serve(|config| config.publish_token = Some("right".parse().unwrap()));
    let Some(mut browser) = open(&server, WIDE) else { return };
    browser.wait_for_text("#state", "text === 'Connected'");
    let publish = "document.querySelector('#publish button').click()";
    browser.evaluate(publish);
    browser.wait_for_text("#published", "/^Not published: .*token/.test(text)");
    browser.evaluate("document.getElementById('token').value = 'wrong'");
    browser.evaluate(publish);
    browser.wait_for_text("#published", "/^Not published: The token is not the right one/.test(text)");
    browser.evaluate("document.getElementById('token').value = 'right'");
    browser.evaluate(publish);
    browser.wait_for_text("#published", "/^Published/.test(text)");
    // Nothing happened to the viewer meanwhile.
    assert_eq!(browser.evaluate("document.getElementById('state').textContent"), "Connected");
    assert!(!browser.evaluate("document.getElementById('events').textContent").contains("again"));
    browser.assert_clean();
}

#[test]
fn figures_that_are_for_operators_are_shown_once_their_token_is_given() {
    let server = serve(|config| config.admin_token = Some("boss".parse().unwrap()));
    let Some(mut browser) = open(&server, WIDE) else { return };
    browser.wait_for_text("#state", "text === 'Connected'");
    browser.wait_for_text("#slow-help", "/This is for operators/.test(text)");
    browser.wait_for("() => !document.getElementById('operator-label').hidden");
    let give = |token: &str| {
        format!(
            "(() => {{ const field = document.getElementById('operator'); field.value = '{token}'; \
             field.dispatchEvent(new Event('change')); }})()"
        )
    };
    browser.evaluate(&give("guess"));
    browser.wait_for_text("#slow-help", "/not the right one/.test(text)");
    browser.evaluate(&give("boss"));
    browser.wait_for_text("#slow-help", "/Nobody is behind/.test(text)");
    browser
        .wait_for("() => [...document.querySelectorAll('#gauges strong')].some(one => /[0-9]/.test(one.textContent))");
}

#[test]
fn a_subscription_that_is_refused_takes_nothing_away() {
    let server = serve(|_| ());
    let publish = |topic: &str, data: &str| {
        server.publisher().publish(topic, Payload::Json(data.as_bytes())).unwrap();
    };
    publish("a.one", "1");
    publish("b.two", "2");
    let Some(mut browser) = open(&server, WIDE) else { return };
    shown(&mut browser, "a.one", "1");
    browser.evaluate("document.getElementById('topics').focus()");
    browser.press("ArrowDown");
    let submit = |browser: &mut Browser, names: &str| {
        browser.type_over("names", names);
        browser.evaluate("document.getElementById('subscribe').requestSubmit()");
    };
    submit(&mut browser, "b.*, a..one");
    let said = browser.wait_for_text("#problem", "/bad_topic/.test(text)");
    assert!(
        said.starts_with("a..one: an empty segment at byte 2") && said.ends_with("Still subscribed to >."),
        "{said}"
    );
    // What was shown moves on, what is chosen too, and what was typed is there to be corrected.
    publish("a.one", "11");
    shown(&mut browser, "a.one", "11");
    browser.wait_for_text("#payload", "text === '11'");
    assert_eq!(browser.evaluate("document.getElementById('names').value"), "b.*, a..one");
    submit(&mut browser, "b.*");
    browser.wait_for("() => document.querySelectorAll('#rows .row:not([hidden])').length === 1");
    assert_eq!(browser.evaluate("document.getElementById('problem').textContent"), "");
    // The chosen topic isn't in the table any more, and is followed all the same.
    publish("a.one", "12");
    browser.wait_for_text("#payload", "text === '12'");
    browser.wait_for_text("#facts", "/^message 3 at/.test(text)");
    // Nor does a wrong way of delivery.
    browser.evaluate("document.getElementById('rate').min = ''");
    subscribe(&mut browser, "latest", "-1");
    browser.wait_for_text("#problem", "/bad_command/.test(text)");
    publish("b.two", "22");
    shown(&mut browser, "b.two", "22");
    browser.assert_clean();
}

#[test]
fn names_that_nothing_is_called_like_are_told_from_a_server_without_topics() {
    let server = serve(|_| ());
    for topic in ["a.one", "a.two"] {
        server.publisher().publish(topic, Payload::Json(b"1")).unwrap();
    }
    let Some(mut browser) = open(&server, WIDE) else { return };
    shown(&mut browser, "a.one", "1");
    browser.type_over("names", "a.oen");
    browser.evaluate("document.getElementById('subscribe').requestSubmit()");
    let said = browser.wait_for_text("#empty", "/2 topics/.test(text)");
    assert!(said.contains("Nothing is published under these names") && !said.contains("--demo"), "{said}");
    server.publisher().publish("a.oen", Payload::Json(b"2")).unwrap();
    shown(&mut browser, "a.oen", "2");
    browser.type_over("names", "");
    browser.evaluate("document.getElementById('subscribe').requestSubmit()");
    browser.wait_for_text("#events", "/Subscribed to nothing/.test(text)");
    browser.assert_clean();
}

#[test]
fn a_chart_without_a_line_says_so_of_the_topic_that_is_chosen() {
    let server = serve(|_| ());
    server.publisher().publish("a.1", Payload::Json(b"7")).unwrap();
    server.publisher().publish("a.2", Payload::Json(b"1e400")).unwrap();
    server.publisher().publish("a.3", Payload::Json(br#"{"a_name_that_is_too_long_for_its_place":1e-12}"#)).unwrap();
    let Some(mut browser) = open(&server, WIDE) else { return };
    shown(&mut browser, "a.2", "1e400");
    browser.evaluate("document.getElementById('topics').focus()");
    browser.press("ArrowDown");
    let said = |text: &str| format!("() => document.getElementById('chart').ariaLabel.startsWith('{text}')");
    browser.wait_for(&said("a.1 over time: now 7"));
    browser.press("ArrowDown");
    browser.wait_for(&said("a.2 over time: nothing that could be drawn"));
    browser.press("ArrowDown");
    browser.wait_for(&said("a_name_that_is_too_long_for_its_place of a.3 over time: now 1e-12"));
    assert_eq!(browser.evaluate("document.getElementById('field').title"), "a_name_that_is_too_long_for_its_place");
    browser.assert_clean();
}

#[test]
fn after_a_restart_the_chosen_topic_lives_again() {
    // In the table by a pattern, or by its own name.
    for names in [">", "old.topic"] {
        let first = Running::listen("127.0.0.1:0", &[]);
        let address = first.address.clone();
        let Some(mut browser) = Browser::open(WIDE, &format!("http://{address}/")) else { return };
        browser.wait_for_text("#events", "/Subscribed to/.test(text)");
        browser.type_over("names", names);
        browser.evaluate("document.getElementById('subscribe').requestSubmit()");
        let publish = |browser: &mut Browser, data: &str| {
            browser.evaluate(&format!(
                "fetch('publish/old.topic?as=json', {{ method: 'POST', body: '{data}' }}).then(it => it.status)"
            ));
        };
        for data in ["1", "2", "3"] {
            publish(&mut browser, data);
        }
        shown(&mut browser, "old.topic", "3");
        browser.evaluate("document.getElementById('topics').focus()");
        browser.press("ArrowDown");
        browser.wait_for_text("#facts", "/^message 3 at/.test(text)");
        drop(first);
        browser.wait_for_text("#state", "text === 'Connection lost'");
        let _second = Running::listen(&address, &[]);
        browser.evaluate("document.getElementById('again').click()");
        browser.wait_for_text("#state", "text === 'Connected'");
        publish(&mut browser, "7");
        browser.wait_for_text("#facts", "/^message 1 at/.test(text)");
        browser.wait_for_text("#payload", "text === '7'");
        let said = "document.getElementById('chart').ariaLabel";
        browser.wait_for(&format!("() => /old.topic over time: now 7, between 7 and 7/.test({said})"));
        browser.assert_clean();
    }
}

#[test]
fn the_distance_is_the_servers_and_not_the_pages() {
    let server = serve(|_| ());
    let Some(mut browser) = open(&server, WIDE) else { return };
    browser.wait_for_text("#detail", "/ ms away/.test(text)");
    // A page that is busy when the answer comes: the way to the server is no longer for it.
    browser.evaluate(
        "(() => { const send = WebSocket.prototype.send; let pings = 0; \
         WebSocket.prototype.send = function (text) { send.call(this, text); \
           if (/\"op\":\"ping\"/.test(text)) { pings += 1; const end = performance.now() + 150; while (performance.now() < end); } }; \
         window.pings = () => pings; })()",
    );
    browser.wait_for("() => window.pings() >= 2");
    let away = browser.wait_for_text("#detail", "/ ms away/.test(text)");
    let ms: f64 = away.rsplit(", ").next().unwrap().trim_end_matches(" ms away").parse().unwrap();
    assert!(ms < 100.0, "{away}");
    browser.assert_clean();
}

#[test]
fn under_a_path_prefix_the_page_works() {
    let server = serve(|config| config.publish_token = None);
    let proxy = Link::below(server.addresses()[0], "/feeds/stentor");
    let Some(mut browser) = Browser::open(WIDE, &format!("http://{}/feeds/stentor/", proxy.address)) else { return };
    browser.wait_for_text("#state", "text === 'Connected'");
    browser.wait_for_text(".gauge:nth-child(1) strong", "text === '1'");
    let hint = browser.wait_for_text("#empty code", "text");
    assert!(hint.ends_with(&format!("http://{}/feeds/stentor/publish/test.hello", proxy.address)), "{hint}");
    browser.evaluate("document.querySelector('#publish button').click()");
    browser.wait_for_text("#published", "/^Published: message 1/.test(text)");
    shown(&mut browser, "test.hello", "1.25");
    browser.wait_for_text("#slow-help", "/Nobody is behind/.test(text)");
    let links = "[...document.querySelectorAll('a[href]:not(.jump), link[rel=stylesheet]')].map(one => new URL(one.href).pathname).join()";
    let paths = browser.evaluate(links);
    assert!(
        paths.split(',').count() >= 6 && paths.split(',').all(|path| path.starts_with("/feeds/stentor/")),
        "{paths}"
    );
    browser.assert_clean();
}

#[test]
fn who_is_sent_to_at_a_rate_is_not_called_nobody() {
    let server = serve(|_| ());
    server.publisher().publish("a", Payload::Json(b"1")).unwrap();
    let Some(mut browser) = open(&server, WIDE) else { return };
    shown(&mut browser, "a", "1");
    // With a quiet topic chosen, nothing is followed closely: all that moves comes at the table's rate.
    browser.evaluate("document.getElementById('topics').focus()");
    browser.press("ArrowDown");
    browser.evaluate(
        "setInterval(() => fetch('publish/b?as=json', { method: 'POST', body: String(performance.now()) }), 50)",
    );
    // When there are more scrapes than rates look back over, all of them of such a time.
    let scrapes = "performance.getEntriesByType('resource').filter(one => one.name.endsWith('/metrics')).length";
    let then: u32 = browser.evaluate(scrapes).parse().unwrap();
    browser.wait_for(&format!("() => {scrapes} > {then} + 9"));
    browser.wait_for_text(".gauge:nth-child(3) strong", "parseFloat(text) > 0");
    assert_eq!(browser.wait_for_text(".gauge:nth-child(6) small", "text"), "all is sent at a rate, so nothing at once");
    browser.assert_clean();
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_found_again() {
    let first = Running::listen("127.0.0.1:0", &[]);
    let address = first.address.clone();
    let Some(mut browser) = Browser::open(WIDE, &format!("http://{address}/")) else { return };
    let publish = |browser: &mut Browser, topic: &str| {
        browser.evaluate(&format!("fetch('/publish/{topic}', {{ method: 'POST', body: '7' }}).then(it => it.status)"));
    };
    browser.wait_for_text("#state", "text === 'Connected'");
    publish(&mut browser, "old.topic");
    shown(&mut browser, "old.topic", "7");
    drop(first); // killed
    browser.wait_for_text("#state", "text === 'Connection lost'");
    browser.wait_for_text("#detail", "/trying again/.test(text)");
    // What was there stays to be read; of what is there now nothing is said.
    shown(&mut browser, "old.topic", "7");
    browser.wait_for_text("#count", "text === '1'");
    browser.wait_for(
        "() => { const canvas = document.querySelector('.gauge canvas'); const pen = canvas.getContext('2d'); \
         const ink = (left, wide) => pen.getImageData(left, 0, wide, canvas.height).data.some(one => one > 0); \
         return ink(0, canvas.width) && !ink(canvas.width - 3, 3); }",
    );
    let _second = Running::listen(&address, &[]);
    browser.evaluate("document.getElementById('again').click()");
    browser.wait_for_text("#state", "text === 'Connected'");
    publish(&mut browser, "new.topic");
    shown(&mut browser, "new.topic", "7");
    // The server that came back knows nothing of it.
    browser.wait_for(
        "() => ![...document.querySelectorAll('#rows .row:not([hidden])')].some(row => /old/.test(row.textContent))",
    );
    browser.wait_for_text("#events", "/Connected again/.test(text)");
    browser.assert_clean();
}

#[test]
fn a_link_that_falls_silent_is_noticed_and_made_anew() {
    let server = serve(|config| config.heartbeat = Span::new(std::time::Duration::from_secs(1)));
    let link = Link::to(server.addresses()[0]);
    let Some(mut browser) = Browser::open(WIDE, &format!("http://{}/", link.address)) else { return };
    browser.wait_for_text("#state", "text === 'Connected'");
    server.publisher().publish("a", Payload::Json(b"1")).unwrap();
    shown(&mut browser, "a", "1");
    link.stall(true);
    browser.wait_for_text("#events", "/nothing was heard for 2 s/.test(text)");
    assert_eq!(browser.evaluate("document.getElementById('state').textContent"), "Connection lost");
    server.publisher().publish("a", Payload::Json(b"2")).unwrap();
    link.stall(false);
    browser.wait_for_text("#state", "text === 'Connected'");
    shown(&mut browser, "a", "2");
    browser.assert_clean();
}

/// Subscribes by the form.
fn subscribe(browser: &mut Browser, mode: &str, rate: &str) {
    browser.evaluate(&format!(
        "(() => {{ const at = id => document.getElementById(id); at('mode').value = '{mode}'; at('rate').value = '{rate}'; \
         at('subscribe').requestSubmit(); }})()"
    ));
}

/// A small tape and small sockets, and a link that keeps back what the server says.
fn behind_a_slow_link(mode: &str) -> Option<(Server, Link, Browser)> {
    let server = serve(|config| {
        config.segment = bytesize::ByteSize::kib(64);
        config.retain = bytesize::ByteSize::kib(512);
        config.sndbuf = bytesize::ByteSize::kib(8);
    });
    let link = Link::to(server.addresses()[0]);
    let mut browser = Browser::open(WIDE, &format!("http://{}/", link.address))?;
    browser.wait_for_text("#events", "/Subscribed to/.test(text)");
    subscribe(&mut browser, mode, "");
    browser.wait_for_text("#events li:first-child", "/Subscribed to >: (every message|the latest)$/.test(text)");
    link.stall(true);
    let text = format!("\"{}\"", "x".repeat(500));
    for _ in 0..40_000 {
        server.publisher().publish("a", Payload::Json(text.as_bytes())).unwrap();
    }
    server.publisher().publish("a", Payload::Json(b"\"the last\"")).unwrap();
    link.stall(false);
    Some((server, link, browser))
}

#[test]
fn on_a_slow_link_the_newest_value_is_shown_and_what_was_left_out_is_counted() {
    let Some((_server, _link, mut browser)) = behind_a_slow_link("latest") else { return };
    shown(&mut browser, "a", "the last");
    browser.wait_for_text("#events", "/[0-9,]+ messages left out/.test(text)");
    assert_eq!(browser.evaluate("document.getElementById('state').textContent"), "Connected");
    browser.assert_clean();
}

#[test]
fn a_page_that_wants_every_message_and_falls_off_the_tape_is_told_and_begins_anew() {
    let Some((_server, _link, mut browser)) = behind_a_slow_link("all") else { return };
    browser.wait_for_text("#events", "/Connection lost.*lag|The server says.*/.test(text)");
    browser.wait_for_text("#events", "/Connected again/.test(text)");
    shown(&mut browser, "a", "the last");
    browser.assert_clean();
}

#[test]
fn who_is_slow_is_listed() {
    let server = serve(|config| config.sndbuf = bytesize::ByteSize::kib(8));
    let Some(mut browser) = open(&server, WIDE) else { return };
    browser.wait_for_text("#slow-help", "/Nobody is behind/.test(text)");
    let _stalled = Client::hello(&server, "/ws?topics=stalled.topic");
    let text = format!("\"{}\"", "x".repeat(500));
    for _ in 0..20_000 {
        server.publisher().publish("stalled.topic", Payload::Json(text.as_bytes())).unwrap();
    }
    let row = browser.wait_for_text("#slow-rows tr", "/stalled.topic/.test(text)");
    assert!(row.contains("127.0.0.1") && row.contains("iB"), "{row}");
    browser.assert_clean();
}

#[test]
fn the_chart_has_what_was_before_the_page() {
    let server = serve(|_| ());
    for n in 0..10 {
        server.publisher().publish("a", Payload::Json(format!("{{\"px\": {n}}}").as_bytes())).unwrap();
    }
    let Some(mut browser) = open(&server, WIDE) else { return };
    shown(&mut browser, "a", "9");
    browser.evaluate("document.getElementById('topics').focus()");
    browser.press("ArrowDown");
    browser
        .wait_for("() => /px of a over time: now 9, between 0 and 9/.test(document.getElementById('chart').ariaLabel)");
    browser.assert_clean();
}

#[test]
fn three_thousand_moving_topics_take_a_few_rows_and_all_can_be_reached() {
    let server = serve(|config| {
        config.demo = true;
        config.demo_symbols = 1500;
        config.demo_rate = Rate::new(20_000.0).unwrap();
    });
    let Some(mut browser) = open(&server, WIDE) else { return };
    browser.wait_for("() => Number(document.getElementById('topics').getAttribute('aria-rowcount')) >= 2900");
    let rows: u32 = browser.evaluate("document.querySelectorAll('#rows .row').length").parse().unwrap();
    assert!(rows < 60, "{rows} rows for 3,000 topics");
    browser.evaluate("document.getElementById('topics').focus()");
    // Further topics come all the time, and push what was the last out of sight: then it is asked for again.
    let chosen = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => { \
         const name = document.querySelector('#rows [aria-selected=true]')?.children[0].textContent; \
         done(name === document.getElementById('chosen-title').textContent && name); })))";
    let mut ends = (0..1000).map(|_| {
        browser.press("End");
        browser.evaluate(chosen)
    });
    let last = ends.find(|name| name.starts_with("t.demo.")).expect("a trade, whose names are the last");
    browser.evaluate("document.getElementById('search').focus()");
    browser.type_over("search", &last.to_lowercase());
    browser.wait_for_text("#count", "/^\\d of /.test(text)");
    browser.type_over("search", "nothing.like.this");
    browser.wait_for_text("#empty", "/No topic is called like that/.test(text)");
    browser.assert_clean();
}

#[test]
fn everything_is_reached_by_keyboard_and_named_for_those_who_listen() {
    let server = serve(|_| ());
    for name in ["a", "b", "c"] {
        server.publisher().publish(name, Payload::Json(b"1")).unwrap();
    }
    let Some(mut browser) = open(&server, WIDE) else { return };
    shown(&mut browser, "c", "1");
    let focused = "document.activeElement.id || document.activeElement.textContent";
    let mut order = Vec::new();
    for _ in 0..12 {
        browser.press("Tab");
        order.push(browser.evaluate(focused));
    }
    assert_eq!(order[..6], ["Go to the topics", "search", "names", "mode", "rate", "Subscribe"]);
    assert!(order.iter().any(|id| id == "topics") && order.iter().any(|id| id == "data"), "{order:?}");
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.evaluate(outline), "solid", "one sees where one is");
    browser.evaluate("document.getElementById('topics').focus()");
    for (key, name) in [("ArrowDown", "a"), ("ArrowDown", "b"), ("End", "c"), ("ArrowUp", "b"), ("Home", "a")] {
        browser.press(key);
        // What a screen reader is pointed at is the row that is chosen.
        browser.wait_for(&format!(
            "() => {{ const row = document.getElementById(document.getElementById('topics').getAttribute('aria-activedescendant')); \
             return row?.ariaSelected === 'true' && row.children[0].textContent === '{name}'; }}"
        ));
    }
    let unnamed = "[...document.querySelectorAll('input, select, textarea, button, canvas:not([aria-hidden])')]\
        .filter(one => !(one.labels?.[0]?.textContent ?? one.ariaLabel ?? one.textContent).trim()).length";
    assert_eq!(browser.evaluate(unnamed), "0", "everything has a name");
    // Only the state and answers are read out: no row, no figure.
    let loud = "[...document.querySelectorAll('[role=status], [role=alert], [aria-live]')].map(one => one.id).join()";
    assert_eq!(browser.evaluate(loud), "state,problem,published");
    browser.assert_clean();
}

#[test]
fn a_phone_needs_no_scrolling_sideways() {
    let server = serve(|config| config.demo = true);
    let Some(mut browser) = open(&server, NARROW) else { return };
    browser.wait_for("() => document.querySelectorAll('#rows .row').length > 5");
    browser.wait_for_text("#chosen-title", "/demo/.test(text)");
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), NARROW.to_string());
    browser.assert_clean();
}

#[test]
fn who_wants_little_motion_gets_little_and_scrolls_as_well() {
    let server = serve(|config| config.demo = true);
    let Some(mut browser) = open(&server, WIDE) else { return };
    browser.wait_for("() => document.querySelectorAll('#rows .row').length > 5");
    // What has changed this moment is marked at once, and then fades.
    browser.wait_for(
        "() => [...document.querySelectorAll('.value i:not(.changed)')] \
         .some(one => getComputedStyle(one).transitionDuration === '0.5s')",
    );
    let fading = "[...document.querySelectorAll('.value i')] \
         .map(one => getComputedStyle(one).transitionDuration).find(one => one !== '0s') ?? '0s'";
    let reduced = serde_json::json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] });
    browser.ask("Emulation.setEmulatedMedia", reduced);
    assert_eq!(browser.evaluate(fading), "0s");
    browser.evaluate("document.getElementById('topics').scrollTop = 3000");
    browser.wait_for("() => [...document.querySelectorAll('#rows .row')].some(row => row.ariaRowIndex === '100')");
    // It goes on moving, if only now and then.
    let seq = "document.querySelector('#rows .row').children[3].textContent";
    browser.wait_for(&format!("(() => {{ const first = {seq}; return () => {seq} !== first; }})()"));
    browser.assert_clean();
}

#[test]
fn other_pages_of_this_server_can_use_the_client() {
    let server = serve(|_| ());
    let Some(mut browser) = open(&server, WIDE) else { return };
    let program = "import('/stentor.js').then(async ({ Stentor }) => { \
        const client = new Stentor(new URL('/ws', location)); \
        const got = new Promise(done => client.subscribe('x.*', { onUpdate: done })); \
        await client.opened(); \
        const { seq } = await client.publish('x.y', { px: 1.5 }); \
        const update = await got; \
        client.close(); \
        return `${seq} ${update.topic} ${update.data.px} ${client.state}`; })";
    assert_eq!(browser.evaluate(program), "1 x.y 1.5 closed");
    browser.assert_clean();
}

#[test]
fn a_page_catches_up_on_a_topic_that_began_after_it_had_subscribed() {
    let server = serve(|_| ());
    let link = Link::to(server.addresses()[0]);
    let Some(mut browser) = Browser::open(WIDE, &format!("http://{}/", link.address)) else { return };
    browser.evaluate(
        "import('/stentor.js').then(async ({ Stentor }) => { \
         const client = new Stentor(new URL('/ws', location), { backoffMs: [1, 10], onState: state => window.state = state }); \
         window.told = []; \
         const onSkip = ({ from, to }) => window.told.push(`${from} to ${to} missed`); \
         client.subscribe('p.*', { onUpdate: ({ seq }) => window.told.push(seq), onSkip }); \
         await client.opened(); await client.list(); })",
    );
    let publish = |data: &str| {
        server.publisher().publish("p.new", Payload::Json(data.as_bytes())).unwrap();
    };
    publish("1");
    browser.wait_for("() => String(window.told) === '1'");
    link.stall(true);
    link.cut();
    browser.wait_for("() => window.state !== 'open'");
    publish("2");
    publish("3");
    link.stall(false);
    browser.wait_for("() => window.told.length > 2 || /missed/.test(window.told)");
    assert_eq!(browser.evaluate("window.told.join()"), "1,2,3");
    browser.assert_clean();
}
