//! Pages of history at work: each may hold tens of megabytes, from its reading to the last byte that its reader takes.

use super::answer::Fault;
use crate::batch::TenantId;
use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

/// At one time, in all.
pub(super) const PAGES_MAX: usize = 8;
/// At one time, of one tenant: who reads slowly keeps no other tenant waiting.
pub(super) const PAGES_OF_TENANT_MAX: usize = 4;
/// What a connection takes at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The pages that are at work, by tenant.
#[derive(Clone, Default)]
pub(super) struct Pages(Arc<Mutex<HashMap<TenantId, usize>>>);

impl Pages {
    /// A page of this tenant, unless too many are at work.
    pub(super) fn begin(&self, tenant: &TenantId) -> Result<Page, Fault> {
        let mut pages = self.pages();
        let of_tenant = pages.get(tenant).copied().unwrap_or_default();
        if of_tenant >= PAGES_OF_TENANT_MAX || pages.values().sum::<usize>() >= PAGES_MAX {
            return Err(Fault::unavailable("too many pages of history are read at this moment: come back"));
        }
        pages.insert(tenant.clone(), of_tenant + 1);
        Ok(Page { pages: self.clone(), tenant: tenant.clone() })
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<TenantId, usize>> {
        self.0.lock().expect("no panic while pages are counted")
    }
}

/// One page at work; dropped, its place is free.
pub(super) struct Page {
    pages: Pages,
    tenant: TenantId,
}

impl Page {
    /// The text as a body that keeps the place until it is sent.
    pub(super) fn into_body(self, text: String) -> axum::body::Body {
        axum::body::Body::new(Sending { rest: text.into(), _page: self })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut pages = self.pages.pages();
        match pages.get_mut(&self.tenant) {
            Some(number) if *number > 1 => *number -= 1,
            _ => drop(pages.remove(&self.tenant)),
        }
    }
}

/// In chunks: handed over whole, it would wait in the connection where nobody counts it.
struct Sending {
    rest: Bytes,
    _page: Page,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(CHUNK_BYTES);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded_in_all_and_of_each_tenant_until_they_are_sent() {
        let pages = Pages::default();
        let begin = |tenant: &str| pages.begin(&TenantId::new(tenant).unwrap());
        let mut acme: Vec<Page> = (0..PAGES_OF_TENANT_MAX).map(|_| begin("acme").ok().unwrap()).collect();
        assert!(begin("acme").is_err());
        let _globex: Vec<Page> = (0..PAGES_OF_TENANT_MAX).map(|_| begin("globex").ok().unwrap()).collect();
        assert!(begin("initech").is_err(), "all are taken");
        let body = acme.pop().unwrap().into_body("text".into());
        assert!(begin("initech").is_err(), "its text is still there");
        drop(body);
        assert!(begin("initech").is_ok());
        drop(acme);
        assert_eq!(pages.pages().len(), 1, "who has no page is forgotten");
    }

    #[tokio::test]
    async fn a_page_is_sent_whole_and_says_how_long_it_is() {
        let pages = Pages::default();
        let text = "line\n".repeat(CHUNK_BYTES);
        let body = pages.begin(&TenantId::new("acme").unwrap()).ok().unwrap().into_body(text.clone());
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(text.len() as u64));
        assert_eq!(axum::body::to_bytes(body, usize::MAX).await.unwrap(), text);
        assert!(pages.pages().is_empty());
    }
}
