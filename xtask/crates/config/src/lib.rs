//! deploy-config
