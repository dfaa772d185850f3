//! mcp-common
