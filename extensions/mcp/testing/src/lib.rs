//! Test support of the MCP servers.
