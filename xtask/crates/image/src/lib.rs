//! deploy-image
