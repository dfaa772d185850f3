//! Files that are refused, with what is said of them.

use super::*;

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(check_file(
        r#"
timeout = "5m"
[deploy]
timout = "5m"
[health]
zebra = 1
[staging]
[environments.production.api]
ulr = "x"
token = "hunter2"
[environments.production]
tenant_id = "ten-1"
"#
    ), @r#"
    unknown key `timeout` at the top of the file
     --> .systemprompt/deploy.toml:2:1
      |
    2 | timeout = "5m"
      | ^^^^^^^
      help: `timeout` is a key of [deploy] and of [health] and of [liveness]

    unknown key `timout` in [deploy]
     --> .systemprompt/deploy.toml:4:1
      |
    4 | timout = "5m"
      | ^^^^^^
      help: did you mean `timeout`?

    unknown key `zebra` in [health]
     --> .systemprompt/deploy.toml:6:1
      |
    6 | zebra = 1
      | ^^^^^
      help: known are kind, command, path, interval, timeout, start_period, retries, status, body

    unknown key `staging` at the top of the file
     --> .systemprompt/deploy.toml:7:2
      |
    7 | [staging]
      |  ^^^^^^^
      help: known are schema, default_environment, build, image, deploy, rollout, analysis, resources, health, liveness, api, local, env, services, environments; an environment is written as [environments.staging], a service as [services.staging]

    unknown key `ulr` in [environments.production.api]
     --> .systemprompt/deploy.toml:9:1
      |
    9 | ulr = "x"
      | ^^^
      help: did you mean `url`?

    unknown key `token` in [environments.production.api]
      --> .systemprompt/deploy.toml:10:1
       |
    10 | token = [redacted]
       | ^^^^^
      help: secrets do not belong in this file: the token goes into SYSTEMPROMPT_API_TOKEN or .systemprompt/credentials.json

    unknown key `tenant_id` in [environments.production]
      --> .systemprompt/deploy.toml:12:1
       |
    12 | tenant_id = "ten-1"
       | ^^^^^^^^^
      help: `tenant_id` is a key of [environments.production.api]
    "#);
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(check_file(
        r#"
deploy = 5
[build]
locked = "yes"
packages = ["a", 1, true]
profile = 1
web = []
[health]
retries = "3"
status = 99
interval = 30
[env]
PORT = 8080
DEBUG = true
[environments]
local = 1
"#
    ), @r#"
    `deploy`: expected a section, found a number
     --> .systemprompt/deploy.toml:2:10
      |
    2 | deploy = 5
      |          ^
      help: write it as [deploy], with its keys below

    `build.locked`: expected true or false, found text
     --> .systemprompt/deploy.toml:4:10
      |
    4 | locked = "yes"
      |          ^^^^^

    `build.packages`: expected text in quotes, found a number
     --> .systemprompt/deploy.toml:5:18
      |
    5 | packages = ["a", 1, true]
      |                  ^

    `build.packages`: expected text in quotes, found true or false
     --> .systemprompt/deploy.toml:5:21
      |
    5 | packages = ["a", 1, true]
      |                     ^^^^

    `build.profile`: expected text in quotes, found a number
     --> .systemprompt/deploy.toml:6:11
      |
    6 | profile = 1
      |           ^
      help: put it in quotes

    `build.web`: expected text in quotes, found a list
     --> .systemprompt/deploy.toml:7:7
      |
    7 | web = []
      |       ^^

    `health.retries`: expected a whole number, found text
     --> .systemprompt/deploy.toml:9:11
      |
    9 | retries = "3"
      |           ^^^

    `health.status`: expected a number from 100 to 599, found 99
      --> .systemprompt/deploy.toml:10:10
       |
    10 | status = 99
       |          ^^

    `health.interval`: expected text such as "30s", found a number
      --> .systemprompt/deploy.toml:11:12
       |
    11 | interval = 30
       |            ^^

    `env.PORT`: expected text in quotes, found a number
      --> .systemprompt/deploy.toml:13:8
       |
    13 | PORT = 8080
       |        ^^^^
      help: put it in quotes

    `env.DEBUG`: expected text in quotes, found true or false
      --> .systemprompt/deploy.toml:14:9
       |
    14 | DEBUG = true
       |         ^^^^
      help: put it in quotes

    `environments.local`: expected a section, found a number
      --> .systemprompt/deploy.toml:16:9
       |
    16 | local = 1
       |         ^
      help: write it as [environments.local], with its keys below
    "#);
}

#[test]
fn wrong_values() {
    insta::assert_snapshot!(check_file(
        r#"
default_environment = "Local"
[build]
profile = ""
[deploy]
strategy = "roling"
timeout = "5 minutes"
require_env = ["A-B"]
[health]
path = "health"
timeout = "0s"
retries = 99999999999
[image]
base = "hosts"
[api]
url = "https://me:hunter2@example.org"
[local]
listen = "7480"
[env]
1A = "x"
[environments.Prod]
[environments.production.health]
status = 0xFFFFFFFFFFFFFFFFFF
"#
    ), @r#"
    `default_environment`: `Local` is no name of an environment: a letter, then at most 62 letters, digits, `-` and `_`, all in lower case
     --> .systemprompt/deploy.toml:2:23
      |
    2 | default_environment = "Local"
      |                       ^^^^^^^

    `build.profile`: must not be empty
     --> .systemprompt/deploy.toml:4:11
      |
    4 | profile = ""
      |           ^^

    `deploy.strategy`: expected one of rolling, blue-green, canary, recreate, found `roling`
     --> .systemprompt/deploy.toml:6:12
      |
    6 | strategy = "roling"
      |            ^^^^^^^^
      help: did you mean `rolling`?

    `deploy.timeout`: `5 minutes` is not a length of time: write whole numbers with d, h, m, s or ms, the longest unit first, as in `30s`, `1500ms` or `1h30m`
     --> .systemprompt/deploy.toml:7:11
      |
    7 | timeout = "5 minutes"
      |           ^^^^^^^^^^^

    `deploy.require_env`: `A-B` is no name of a variable: letters, digits and `_`, no digit first
     --> .systemprompt/deploy.toml:8:15
      |
    8 | require_env = ["A-B"]
      |               ^^^^^^^

    `health.path`: expected a path that begins with `/` and holds no space
      --> .systemprompt/deploy.toml:10:8
       |
    10 | path = "health"
       |        ^^^^^^^^

    `health.timeout`: must be longer than nothing
      --> .systemprompt/deploy.toml:11:11
       |
    11 | timeout = "0s"
       |           ^^^^

    `health.retries`: expected a number from 1 to 1000, found 99999999999
      --> .systemprompt/deploy.toml:12:11
       |
    12 | retries = 99999999999
       |           ^^^^^^^^^^^

    `image.base`: `hosts` is none of dockerfile, host, scratch; an image is written with its tag or digest, as in `hosts:latest`
      --> .systemprompt/deploy.toml:14:8
       |
    14 | base = "hosts"
       |        ^^^^^^^

    `api.url`: the address must not carry a user or password: the token goes into SYSTEMPROMPT_API_TOKEN
      --> .systemprompt/deploy.toml:16:7
       |
    16 | url = "https://[redacted]@example.org"
       |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    `local.listen`: `7480` is no address to listen on: write an IP address and a port, as in `127.0.0.1:7480`
      --> .systemprompt/deploy.toml:18:10
       |
    18 | listen = "7480"
       |          ^^^^^^

    `1A` is no name of a variable: letters, digits and `_`, no digit first
      --> .systemprompt/deploy.toml:20:1
       |
    20 | 1A = "x"
       | ^^

    `Prod` is no name of an environment: a letter, then at most 62 letters, digits, `-` and `_`, all in lower case
      --> .systemprompt/deploy.toml:21:15
       |
    21 | [environments.Prod]
       |               ^^^^

    `environments.production.health.status`: the number is too large
      --> .systemprompt/deploy.toml:23:10
       |
    23 | status = 0xFFFFFFFFFFFFFFFFFF
       |          ^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn not_toml() {
    insta::assert_snapshot!(check_file("[deploy\ntimeout = \"5m\"\n\n[env]\nA = \n"), @r"
    not TOML: unclosed table, expected `]`
     --> .systemprompt/deploy.toml:1:8
      |
    1 | [deploy
      |        ^

    not TOML: string values must be quoted, expected literal string
     --> .systemprompt/deploy.toml:5:5
      |
    5 | A = 
      |     ^
    ");
    insta::assert_snapshot!(check_file("[env]\nA = \"1\"\nA = \"2\"\n"), @r#"
    not TOML: duplicate key
     --> .systemprompt/deploy.toml:3:1
      |
    3 | A = "2"
      | ^
    "#);
}

#[test]
fn a_newer_format_is_not_judged() {
    insta::assert_snapshot!(check_file("schema = 2\n[something]\nnew = 1\n"), @r"
    `schema`: format 2 is not known, only 1: use the version of this tool that the file was written for
     --> .systemprompt/deploy.toml:1:10
      |
    1 | schema = 2
      |          ^
    ");
}
