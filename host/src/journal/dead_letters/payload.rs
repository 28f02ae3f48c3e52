//! What a letter looks like inside its frame; `docs/journal-format.md` describes the bytes.
//!
//! Pure functions. Any bytes can be decoded: what is neither a letter nor a list of finished ones gives `None`.

use super::{Letter, LetterId, WholeLetter};
use crate::batch::{ProjectId, Signal, Stream};
use crate::journal::payload::{Bytes as Decoding, length, signal_byte, text, u64s};
use bytes::Bytes;

const LETTER: u8 = 1;
const FINISHED: u8 = 2;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// With its serial number.
    Letter(u64, WholeLetter),
    /// These were replayed or dropped.
    Finished(Vec<LetterId>),
}

/// What a letter begins with.
pub(super) fn encode_serial(serial: u64) -> [u8; 9] {
    let mut bytes = [LETTER; 9];
    bytes[1..].copy_from_slice(&serial.to_le_bytes());
    bytes
}

/// What stands between that and the content of a letter.
pub(super) fn encode_letter(letter: &Letter, message: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    u64s(&mut bytes, &[letter.first, letter.time_ms, letter.refused_ms]);
    bytes.extend(letter.records.to_le_bytes());
    bytes.push(signal_byte(letter.signal));
    let Stream { tenant, project } = &letter.stream;
    let texts = [&letter.sink, tenant.as_str(), project.as_str(), &letter.reason, message];
    texts.into_iter().for_each(|of| text(&mut bytes, of));
    bytes
}

pub(super) fn encode_finished(ids: &[LetterId]) -> Vec<u8> {
    let mut bytes = vec![FINISHED];
    bytes.extend(length(ids.len()).to_le_bytes());
    ids.iter().for_each(|id| u64s(&mut bytes, &[id.segment, id.offset]));
    bytes
}

/// The frame at `id`.
pub(super) fn decode(id: LetterId, payload: Vec<u8>) -> Option<Payload> {
    let payload = Bytes::from(payload);
    let mut from = Decoding(payload.get(1..)?);
    match *payload.first()? {
        LETTER => Some(Payload::Letter(from.u64()?, decode_letter(id, &mut from, &payload)?)),
        FINISHED => {
            let ids = from.list(|from| Some(LetterId { segment: from.u64()?, offset: from.u64()? }))?;
            from.0.is_empty().then_some(Payload::Finished(ids))
        }
        _ => None,
    }
}

fn decode_letter(id: LetterId, from: &mut Decoding<'_>, payload: &Bytes) -> Option<WholeLetter> {
    let (first, time_ms, refused_ms) = (from.u64()?, from.u64()?, from.u64()?);
    let (records, signal): (u32, Signal) = (from.u32()?, from.signal()?);
    let sink = from.text()?.to_owned();
    let stream = Stream { tenant: from.tenant()?, project: ProjectId::new(from.text()?).ok()? };
    let (reason, message) = (from.text()?.to_owned(), from.text()?.to_owned());
    let content = payload.slice_ref(from.0);
    let bytes = content.len();
    let letter = Letter { id, sink, stream, signal, first, time_ms, refused_ms, records, bytes, reason };
    Some(WholeLetter { letter, message, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::TenantId;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn letters() -> impl Strategy<Value = WholeLetter> {
        let names = ("[a-z]{1,9}", "[a-z]{1,9}", "[a-z]{1,9}", "[a-z_]{0,9}", "\\PC{0,30}");
        let numbers = (any::<[u64; 3]>(), any::<u32>(), 0usize..3, any::<[u64; 2]>());
        (names, numbers, vec(any::<u8>(), 0..50)).prop_map(
            |((sink, tenant, project, reason, message), (times, records, signal, place), content)| {
                let [first, time_ms, refused_ms] = times;
                let letter = Letter {
                    id: LetterId { segment: place[0], offset: place[1] },
                    sink,
                    stream: Stream {
                        tenant: TenantId::new(&tenant).unwrap(),
                        project: ProjectId::new(&project).unwrap(),
                    },
                    signal: Signal::ALL[signal],
                    first,
                    time_ms,
                    refused_ms,
                    records,
                    bytes: content.len(),
                    reason,
                };
                WholeLetter { letter, message, content: content.into() }
            },
        )
    }

    proptest! {
        #[test]
        fn a_letter_is_decoded_as_it_was(serial in any::<u64>(), whole in letters()) {
            let mut payload = encode_serial(serial).to_vec();
            payload.extend(encode_letter(&whole.letter, &whole.message));
            payload.extend(&whole.content);
            prop_assert_eq!(decode(whole.letter.id, payload), Some(Payload::Letter(serial, whole)));
        }

        #[test]
        fn the_finished_are_decoded_as_they_were(places in vec(any::<[u64; 2]>(), 0..9)) {
            let ids: Vec<LetterId> =
                places.iter().map(|place| LetterId { segment: place[0], offset: place[1] }).collect();
            let mut payload = encode_finished(&ids);
            let at = LetterId { segment: 1, offset: 2 };
            prop_assert_eq!(decode(at, payload.clone()), Some(Payload::Finished(ids)));
            payload.push(0);
            prop_assert_eq!(decode(at, payload), None);
        }

        #[test]
        fn any_bytes_can_be_decoded(mut bytes in vec(any::<u8>(), 0..300), tag in 0u8..4) {
            let at = LetterId { segment: 1, offset: 2 };
            let _ = decode(at, bytes.clone());
            bytes.insert(0, tag);
            let _ = decode(at, bytes);
        }
    }
}
