//! Every integration test, in one binary: one module per area.
#![allow(missing_docs, reason = "tests describe themselves by name")]
#![allow(unreachable_pub, reason = "the modules of a test binary have no outside")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps is a test that fails loudly")]

mod api_page;
mod bench;
mod cli;
mod console;
mod credentials;
mod demo;
mod device_loop;
mod docs;
mod ec2;
mod ec2_crash;
mod ec2_device_faults;
mod ec2_dry_runs;
mod ec2_faults;
mod ec2_instances;
mod ec2_key_loss;
mod ec2_modify;
mod ec2_policies;
mod explain;
mod exporter;
mod faults;
mod fuzz;
mod fuzz_blob;
mod fuzz_context;
mod fuzz_explain;
mod fuzz_http;
mod fuzz_luks2;
mod fuzz_nbd;
mod fuzz_policy;
mod guest;
mod harness;
mod http_auth;
mod http_clients;
mod http_docs;
mod http_own;
mod http_server;
#[cfg(feature = "tls")]
mod http_tls;
mod http_wire;
mod init;
mod judges_clients;
mod judges_copy;
mod judges_faults;
mod judges_format;
mod judges_gate;
mod judges_home;
mod judges_kms;
mod judges_secrets;
mod kms;
mod kms_import;
mod kms_more;
mod kms_regions;
mod kms_rotation;
mod limits;
mod luks2_judges;
mod nbd;
mod scene;
mod security;
mod trail;
mod trail_schema;
mod xts;
