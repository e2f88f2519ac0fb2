//! What is kept: any bytes, and many of them.

use bytes::Bytes;

use super::bench::{Bench, Check, HOUR, append, ensure, fresh_definition, fresh_owner, new_saga, same};
use crate::KeyId;
use crate::random::unique;
use crate::saga::SagaId;
use crate::saga::journal::{Append, Appended, Created, DefinitionId, Entry, NewSaga, OwnerId};

const MEBIBYTE: usize = 1024 * 1024;

/// Entries come back as they were, and are recognised when they are sent again.
async fn keeps(bench: &Bench, entries: &[Entry]) -> Check {
    let new = NewSaga {
        lease: Some((fresh_owner(), HOUR)),
        entries: entries.to_vec(),
        ..new_saga()
    };
    bench.create(&new).await?;
    let append = Append {
        entries: entries.to_vec(),
        ..append(new.id, 1, u64::try_from(entries.len()).unwrap_or_default())
    };
    for time in ["the append", "the same append"] {
        let answer = bench.handle(1).append(&append).await?;
        same(time, &answer, &Appended::Written { cancel: false })?;
    }
    let loaded = bench.load(new.id).await?;
    same("how many", &loaded.entries.len(), &(2 * entries.len()))?;
    for (stored, written) in loaded.entries.iter().zip(entries.iter().chain(entries)) {
        ensure(stored.entry == *written, || {
            format!("expected {written:?}, got {:?} or others", stored.entry)
        })?;
    }
    Ok(())
}

pub(super) async fn any_bytes_are_kept_and_none_is_not_empty(bench: &Bench) -> Check {
    let values = [
        Bytes::new(),
        (0..=255).collect(),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"\xff\xfe"),
        Bytes::from_static(b"{\"a\":\"\\u0000\"}"),
        // As JSON it could be written otherwise.
        Bytes::from_static(b"{\"b\" : 1.50,\"a\":1e400, \"a\":2}"),
        Bytes::from_static(b"'; DROP TABLE sagas; --"),
    ];
    let mut entries = Vec::new();
    for event in &values {
        for context in [None].into_iter().chain(values.iter().cloned().map(Some)) {
            let event = event.clone();
            entries.push(Entry { event, context });
        }
    }
    keeps(bench, &entries).await
}

pub(super) async fn a_mebibyte_is_kept(bench: &Bench) -> Check {
    let large: Bytes = (0..=250_u8).cycle().take(MEBIBYTE).collect();
    let entry = Entry {
        event: large.clone(),
        context: Some(large),
    };
    keeps(bench, &[entry]).await
}

pub(super) async fn ids_are_any_bytes(bench: &Bench) -> Check {
    for byte in [0, 1, 0x7f, 0x80, 0xff] {
        // All the same, but for what tells this run from an earlier one.
        let mut bytes = [byte; 32];
        bytes[8..16].copy_from_slice(&unique()[..8]);
        let mut id = [byte; 16];
        id[8..].copy_from_slice(&bytes[8..16]);
        let (key, owner) = (KeyId::from_bytes(bytes), OwnerId([byte; 16]));
        let new = NewSaga {
            id: SagaId::from_bytes(id),
            key,
            input: [byte; 32],
            definition: DefinitionId {
                fingerprint: [byte; 32],
                version: u32::MAX - u32::from(byte),
                ..fresh_definition()
            },
            lease: Some((owner, HOUR)),
            ..new_saga()
        };
        bench.create(&new).await?;
        let head = bench.head(new.id).await?;
        let kept = (head.id, head.key, head.input, head.owner);
        same("the ids", &kept, &(new.id, key, new.input, Some(owner)))?;
        same("the definition", &head.definition, &new.definition)?;
        same("what the key finds", &bench.journal.find(key).await?, &Some(head))?;
        let mut input = new.input;
        input[31] ^= 1;
        let other = NewSaga {
            id: SagaId::new(),
            input,
            ..new.clone()
        };
        same(
            "another input",
            &bench.journal.create(&other).await?,
            &Created::Conflict,
        )?;
        let renewals = bench.journal.renew(owner, HOUR, &[(new.id, 1)]).await?;
        same(
            "the renewal",
            &renewals.first().map(|renewal| renewal.held),
            &Some(true),
        )?;
    }
    Ok(())
}
