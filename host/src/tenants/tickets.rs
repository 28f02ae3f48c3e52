//! Tickets: `{tenant, projects, expires}` signed with HMAC-SHA-256, at most an hour.
