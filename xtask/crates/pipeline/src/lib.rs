//! deploy-pipeline
