//! Dead letters: listed without what they say, sent again to their sink alone.

use super::*;
use crate::batch::{Entry, ProjectId, Stream};
use crate::journal::{Amount, DeadLetters, LetterSettings};
use crate::pipeline::letters::{Chosen, Handled, Letters, LettersError, WhichLetters};

const SECRET: &str = "card4111";
const WORDS: &str = "no: card4111 is not a body";

struct Post {
    world: World,
    store: Arc<DeadLetters>,
    letters: Letters,
    _folder: tempfile::TempDir,
}

fn post() -> Post {
    let world = world(vec![to("all", &[], vec![sink("a"), sink("b")])], &[], &["a", "b"]);
    let folder = tempfile::tempdir().unwrap();
    let settings = LetterSettings {
        folder: folder.path().join("dead-letters"),
        bytes_max: 64 << 20,
        age_max: Duration::from_secs(3600),
    };
    let store = DeadLetters::open(&settings, system_clock(), &world.metrics).unwrap();
    let letters = Letters::new(store.clone(), world.pipeline.clone());
    Post { world, store, letters, _folder: folder }
}

impl Post {
    /// A record that says this was refused by this sink.
    async fn refuse(&self, sink: &str, tenant: &str, body: &str) -> String {
        let entry = Entry {
            stream: Stream {
                tenant: TenantId::new(tenant).unwrap(),
                project: ProjectId::new("shop").unwrap(),
            },
            signal: Signal::Logs,
            first: 77,
            records: 1,
            time_ms: 1_700_000_000_123,
            node: [1; 4],
            bytes: request(&[("", &[body])]).into(),
        };
        self.store.keep(sink, &entry, "refused", WORDS).await.unwrap().to_string()
    }

    fn ids(texts: &[&String]) -> Chosen {
        Chosen::These(texts.iter().map(|text| text.parse().unwrap()).collect())
    }
}

#[tokio::test]
async fn a_list_says_neither_what_was_sent_nor_what_was_answered() {
    let post = post();
    let id = post.refuse("a", "t", SECRET).await;
    let page = post.letters.page(WhichLetters::default(), 10).await.unwrap();
    let listed = serde_json::to_value(&page).unwrap();
    let refused_at = listed["letters"][0]["refused_at"].clone();
    assert_eq!(
        listed,
        serde_json::json!({ "next": null, "letters": [{
            "id": id, "sink": "a", "tenant": "t", "project": "shop", "signal": "logs", "records": 1,
            "bytes": request(&[("", &[SECRET])]).len(), "time": "2023-11-14T22:13:20.123Z",
            "refused_at": refused_at, "reason": "refused",
        }]})
    );
    for shown in [format!("{page:?}"), format!("{:?}", post.store.read(id.parse().unwrap()))] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    let shown = post.letters.show(id.parse().unwrap()).await.unwrap().unwrap();
    let shown = serde_json::to_value(&shown).unwrap();
    assert_eq!((&shown["id"], &shown["message"]), (&listed["letters"][0]["id"], &WORDS.into()));
    let record = &shown["content"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["body"]["stringValue"], SECRET);
    assert_eq!(post.letters.show("99-99".parse().unwrap()).await, Ok(None));
}

#[tokio::test]
async fn what_is_sent_again_goes_to_its_sink_alone_and_the_ledger_knows() {
    let post = post();
    let one = post.refuse("a", "t", "one").await;
    let two = post.refuse("b", "u", "two").await;
    let handled = post.letters.replay(Post::ids(&[&one, &one, &two])).await.unwrap();
    assert_eq!(handled, Handled { letters: 2, records: 2, ..Handled::default() });
    assert_eq!(
        (post.world.given(0), post.world.given(1)),
        (vec!["t/shop: one".into()], vec!["u/shop: two".into()])
    );
    let table = post.world.table();
    let line = table.line("t", Signal::Logs);
    assert_eq!((line.received, line.acknowledged, line.committed, line.added["replay"]), (0, 0, 1, 1));
    assert_eq!((line.sinks["a"].committed, line.sinks.get("b")), (1, None));
    assert_eq!(post.store.live(), Amount::default());
    let again = post.letters.replay(Post::ids(&[&one])).await.unwrap();
    assert_eq!(again, Handled { not_there: 1, ..Handled::default() });
    assert_eq!(post.world.table().line("t", Signal::Logs).committed, 1);
}

#[tokio::test]
async fn a_letter_whose_sink_was_removed_stays_and_can_be_dropped() {
    let post = post();
    let gone = post.refuse("gone", "t", "one").await;
    post.refuse("a", "t", "two").await;
    let handled = post.letters.replay(Chosen::All(WhichLetters::default())).await.unwrap();
    let without_sink = [("gone".to_owned(), 1)].into();
    assert_eq!(handled, Handled { letters: 1, records: 1, without_sink, ..Handled::default() });
    assert_eq!(post.store.live().letters, 1);
    let dropped = post.letters.drop(Post::ids(&[&gone, &"9-9".to_owned()])).await.unwrap();
    assert_eq!(dropped, Handled { letters: 1, records: 1, not_there: 1, ..Handled::default() });
    assert_eq!(post.store.live(), Amount::default());
    post.world.table();
}

#[tokio::test]
async fn all_are_done_in_pages_and_what_is_refused_meanwhile_is_none_of_them() {
    let post = post();
    let mut keeping = tokio::task::JoinSet::new();
    for at in 0..2_500 {
        let store = post.store.clone();
        let tenant = if at % 5 == 0 { "t" } else { "u" };
        keeping.spawn(async move {
            let stream =
                Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::new("shop").unwrap() };
            let bytes = request(&[("", &["x"])]).into();
            let entry = Entry {
                stream,
                signal: Signal::Logs,
                first: at,
                records: 1,
                time_ms: 1,
                node: [1; 4],
                bytes,
            };
            store.keep("a", &entry, "refused", "").await.unwrap();
        });
    }
    while let Some(kept) = keeping.join_next().await {
        kept.unwrap();
    }
    let mut which = WhichLetters { tenant: Some("u".into()), ..WhichLetters::default() };
    let (mut pages, mut letters) = (0, 0);
    loop {
        let handled = post.letters.replay(Chosen::All(which.clone())).await.unwrap();
        post.refuse("a", "u", "refused again").await;
        (pages, letters) = (pages + 1, letters + handled.letters);
        let Some(after) = handled.after else { break };
        which.after = Some(after.parse().unwrap());
        which.until = Some(handled.until.unwrap().parse().unwrap());
    }
    assert_eq!((pages, letters, post.store.live().letters), (2, 2_000, 502));
    assert_eq!(post.world.given(0).len(), 2_000);
    let mut which = WhichLetters::default();
    loop {
        let handled = post.letters.drop(Chosen::All(which.clone())).await.unwrap();
        let Some(after) = handled.after else { break };
        which.after = Some(after.parse().unwrap());
    }
    assert_eq!(post.store.live(), Amount::default());
    post.world.table();
}

#[tokio::test]
async fn what_the_journal_does_not_take_stays() {
    let post = post();
    let one = post.refuse("a", "t", "one").await;
    post.world.journal.close();
    let refused = post.letters.replay(Post::ids(&[&one])).await;
    assert_eq!(refused, Err(LettersError::NotTaken { why: "stopping".into(), letters: 0 }));
    assert_eq!(post.store.live().letters, 1);
    post.world.table();
}
