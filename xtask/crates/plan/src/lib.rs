//! deploy-plan
