//! The checked walk: wire types, lengths, nesting and UTF-8 of a whole request, once, without allocation per record.
