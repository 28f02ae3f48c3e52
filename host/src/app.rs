//! Assembly in flow order, shutdown in reverse.
