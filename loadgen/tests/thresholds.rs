//! Thresholds decide how the program ends, and say what they found.

mod common;

use common::{Act, loadgen, program, serve};

const SHORT: &str = "--subs 5 --rate 400/s --duration 1s --warmup 250ms --drain 1s";

#[test]
fn a_threshold_that_is_passed_fails_and_one_that_is_kept_does_not() {
    let outcome = loadgen("fanout", serve(|_, _| Act::Pass), &format!("{SHORT} --fail-if max<60m --fail-if missing>0"));
    assert_eq!(outcome.code, 5, "{}{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("FAILED --fail-if max<60m: "), "{}", outcome.out);
    assert!(outcome.out.contains("kept   --fail-if missing>0: 0\n"), "{}", outcome.out);
    let holds = |nth: usize| outcome.json["thresholds"][nth]["holds"].as_bool();
    assert_eq!((holds(0), holds(1)), (Some(true), Some(false)));
    loadgen("fanout", serve(|_, _| Act::Pass), &format!("{SHORT} --fail-if missing>0")).assert_fine();
}

#[test]
fn a_figure_that_can_not_be_given_fails_and_says_why() {
    let outcome = loadgen("fanout", serve(|_, _| Act::Pass), &format!("{SHORT} --fail-if p99>60m"));
    assert_eq!(outcome.code, 5, "{}{}", outcome.out, outcome.err);
    let why = "FAILED --fail-if p99>60m: too few (400 of 1,000) publications";
    assert!(outcome.out.contains(why), "{}", outcome.out);
}

#[test]
fn runs_are_pooled_for_a_percentile() {
    let outcome = loadgen("fanout", serve(|_, _| Act::Pass), &format!("{SHORT} --repeat 3 --fail-if p99>60m"));
    assert!(outcome.code == 0 || outcome.code == 3, "{}{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("kept   --fail-if p99>60m: "), "{}", outcome.out);
}

#[test]
fn a_loss_outweighs_a_threshold() {
    let server = serve(|subscriber, nth| if (subscriber, nth) == (2, 200) { Act::Drop } else { Act::Pass });
    assert_eq!(loadgen("fanout", server, &format!("{SHORT} --fail-if max<60m")).code, 1);
}

#[test]
fn what_no_run_of_these_settings_can_tell_is_refused_before_it() {
    let refused = [
        (
            "fanout",
            "--fail-if p99>5ms",
            "--fail-if: `p99>5ms`: that figure takes publications that are due at planned moments",
        ),
        ("fanout", "--rate 5/s --fail-if cpu>5us", "takes --server-pid"),
        ("churn", "--rate 5/s --fail-if sends>1", "or --server-metrics"),
        ("fanout", "--rate 5/s --fail-if returning-p50>1s", "as with churn, storm and join"),
        ("fanout", "--rate 5/s --fail-if p98>5ms", "`p98` in `p98>5ms` is no figure"),
    ];
    for (scenario, arguments, sentence) in refused {
        let outcome = program(&format!("{scenario} ws://127.0.0.1:1 {arguments}"));
        assert_eq!(outcome.code, 2, "{}{}", outcome.out, outcome.err);
        assert!(outcome.err.contains(sentence), "expected `{sentence}` in: {}", outcome.err);
    }
}
