//! `model push --precision`: what is asked of the node, and what is told of its answer.

use super::*;

#[test]
fn a_push_asks_for_a_precision_and_tells_what_it_gave() {
    let folder = digits_folder();
    let texts = folder.path().join(".texts");
    fs::write(&texts, "one\n  \ntwo\n").unwrap();
    let mut node = publishing_node(Arc::new(Mutex::new(Vec::new())));
    let server = Scripted::serve(move |asked| {
        if !asked.path.ends_with("/versions") {
            return node(asked);
        }
        let answer = json!({
            "model": "digits", "version": 2, "created": true, "record": record(), "epoch": 11,
            "precision": {
                "precision": "bf16", "texts": 2, "cosine_min_ppm": 999_417, "cosine_mean_ppm": 999_802,
                "f32_text_ns": 1_400_000, "bf16_text_ns": 600_000, "is_rounded": true,
            },
        });
        Reply::json(200, &answer)
    });
    let (path, texts) = (folder.path().to_str().unwrap(), texts.to_str().unwrap());
    let push = ["model", "push", "digits", path];
    let measured = ["--precision", "bf16", "--calibration", texts, "--force"];
    let told = run(&server, &[&push[..], &measured].concat());
    assert_eq!(told.code, 0, "{}", told.err);
    let cosine = "cosine      least 0.999417, mean 0.999802, of 2 texts\n";
    assert!(told.out.contains(cosine), "{}", told.out);
    assert!(
        told.out.contains("1.4 ms a text in f32, 600"),
        "{}",
        told.out
    );
    let asked = server.asked();
    let published = asked
        .iter()
        .find(|a| a.path.ends_with("/versions"))
        .unwrap();
    let request: PublishRequest = serde_json::from_slice(&published.body).unwrap();
    let choice = request.precision.unwrap();
    assert_eq!(choice.calibration, ["one", "two"]);
    assert!(choice.force);

    let wrong = usage(&[&push[..], &["--precision", "int8"]].concat());
    assert!(wrong.contains("f32 and bf16"), "{wrong}");
    usage(&[&push[..], &["--force"]].concat());
    let empty = folder.path().join(".empty");
    fs::write(&empty, "\n").unwrap();
    let empty = [
        "--precision",
        "bf16",
        "--calibration",
        empty.to_str().unwrap(),
    ];
    let wrong = run(&server, &[&push[..], &empty].concat());
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.err.contains("0 texts; allowed: 1 to 1024"),
        "{}",
        wrong.err
    );
}
