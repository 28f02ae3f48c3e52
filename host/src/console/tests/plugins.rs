//! Who may change a plugin's version, and what is answered.

use super::*;

#[tokio::test]
async fn only_an_administrator_changes_the_version_of_a_plugin() {
    let world = world(Shape::default()).await;
    for method in ["POST", "DELETE"] {
        for (who, status) in
            [("acme-sends", 403), ("acme-reads-all", 403), ("nobody", 401), ("administrator", 200)]
        {
            let text = format!(
                "{method} /v1/plugins/redact/swap\nhost: c.example\ncontent-type: application/json\nauthorization: Bearer {who}\n\n{{}}"
            );
            assert_eq!(world.open(&text).await.status().as_u16(), status, "{method} {who}");
        }
    }
    assert_eq!(world.status("administrator", "/v1/plugins/redact/swap").await, 405);
}

#[tokio::test]
async fn the_answer_tells_what_became_of_the_wish() {
    let world = world(Shape::default()).await;
    let check = async |line: &str, body: &str, status: u16, answer: Value| {
        let head = "host: c.example\nauthorization: Bearer administrator\ncontent-type: application/json";
        let (found, _, text) = world.ask(&format!("{line}\n{head}\n\n{body}")).await;
        let text: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((found.as_u16(), text), (status, answer), "{line} {body}");
    };
    let plugin = json!({ "name": "redact" });
    let swap = "POST /v1/plugins/redact/swap";
    check(swap, "{}", 200, json!({ "result": "promoted", "plugin": plugin })).await;
    check(swap, r#"{"force": true}"#, 202, json!({ "result": "on_trial", "plugin": plugin })).await;
    check("DELETE /v1/plugins/redact/swap", "", 200, json!({ "result": "ended", "plugin": plugin })).await;
    let refused = json!({ "error": "loading: it is broken", "plugin": { "name": "broken/1" } });
    check("POST /v1/plugins/broken%2F1/swap", "{}", 409, refused).await;
    let unknown = json!({ "error": "no such plugin: GET /v1/plugins lists them" });
    check("POST /v1/plugins/none/swap", "{}", 404, unknown).await;
    let wrong = json!({ "error": crate::console::plugins::RIGHT_BODY });
    for body in ["", "[]", r#"{"force": "yes"}"#, r#"{"path": "/etc"}"#] {
        check(swap, body, 400, wrong.clone()).await;
    }
    // A form of another page cannot say what it sends.
    let text = format!(
        "{swap}\nhost: c.example\nauthorization: Bearer administrator\ncontent-type: text/plain\n\n{{}}"
    );
    assert_eq!(world.open(&text).await.status().as_u16(), 400);
}
