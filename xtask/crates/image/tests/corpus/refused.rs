//! Dockerfiles with faults.

/// Dockerfiles that both must refuse.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    ("missing file", "FROM scratch\nCOPY no-such-file /x\n"),
    ("ignored file", "FROM scratch\nCOPY docs/internal.md /x\n"),
    (
        "missing in stage",
        "FROM scratch AS one\nCOPY a.txt /x\nFROM scratch\nCOPY --from=one /y /y\n",
    ),
    (
        "directory over file",
        "FROM scratch\nCOPY a.txt /x\nCOPY dir /x\n",
    ),
    (
        "file over directory",
        "FROM scratch\nCOPY dir /x/one/\nCOPY dir /y/\nCOPY a.txt /y/sub/three/x\n",
    ),
    ("unknown instruction", "FROM scratch\nCOPPY a b\n"),
    ("no from", "COPY a.txt /x\n"),
    ("unknown flag", "FROM scratch\nCOPY --what=1 a.txt /x\n"),
    ("no destination", "FROM scratch\nCOPY a.txt\n"),
    ("bad signal", "FROM scratch\nSTOPSIGNAL NOPE\n"),
    ("bad port", "FROM scratch\nEXPOSE http\n"),
    ("env without value", "FROM scratch\nENV A=1 B\n"),
    (
        "bad healthcheck",
        "FROM scratch\nHEALTHCHECK --interval=x CMD y\n",
    ),
    ("empty", "# nothing\n"),
    ("unknown owner", "FROM scratch\nCOPY --chown=bob a.txt /x\n"),
    ("bad substitution", "FROM scratch\nENV A=${B\n"),
    (
        "required variable",
        "FROM scratch\nWORKDIR ${A:?must be set}\n",
    ),
    ("empty image", "ARG I\nFROM $I\n"),
    ("stage name", "FROM scratch AS 1x\n"),
    (
        "later stage",
        "FROM scratch AS one\nCOPY --from=two /a /b\nFROM scratch AS two\nCOPY a.txt /a\nFROM one\n",
    ),
    (
        "stage in another case",
        "FROM scratch AS one\nCOPY a.txt /a\nFROM ONE\nCOPY b.txt /b\n",
    ),
    (
        "stage from itself",
        "FROM scratch AS one\nCOPY a.txt /a\nFROM scratch AS two\nCOPY --from=two /a /b\n",
    ),
    (
        "stage from itself by an earlier name",
        "FROM scratch AS one\nCOPY a.txt /a\nFROM one AS one\nCOPY --from=one /a /b\n",
    ),
    (
        "stage by a number too high",
        "FROM scratch\nCOPY --from=1 /a /b\n",
    ),
    ("hidden directory", "FROM scratch\nCOPY secret/key /x\n"),
    ("bad pattern", "FROM scratch\nCOPY a[ /x/\n"),
    (
        "directive twice",
        "# escape=`\n# escape=`\nFROM scratch\nCOPY a.txt /x\n",
    ),
    ("bad escape", "# escape=x\nFROM scratch\nCOPY a.txt /x\n"),
    (
        "instruction before from",
        "ENV A=b\nFROM scratch\nCOPY a.txt /x\n",
    ),
    (
        "from with too much",
        "FROM scratch AS one two\nCOPY a.txt /x\n",
    ),
    ("from without as", "FROM scratch one\nCOPY a.txt /x\n"),
    ("copy to nowhere", "FROM scratch\nCOPY [\"a.txt\"]\n"),
    (
        "flag twice",
        "FROM scratch\nCOPY --chown=1 --chown=2 a.txt /x\n",
    ),
    (
        "flag without value",
        "FROM scratch\nCOPY --chown a.txt /x\n",
    ),
    (
        "unknown group",
        "FROM scratch\nCOPY --chown=1:nobody a.txt /x\n",
    ),
    ("unclosed quote", "FROM scratch\nENV A=\"b\n"),
    ("label without value", "FROM scratch\nLABEL a=1 b\n"),
    ("empty label name", "FROM scratch\nLABEL =b\n"),
    ("bad modifier", "FROM scratch\nENV A=${B!c}\n"),
    ("workdir without a directory", "FROM scratch\nWORKDIR\n"),
    ("volume of nothing", "FROM scratch\nVOLUME [\"\"]\n"),
    ("shell without a list", "FROM scratch\nSHELL /bin/sh\n"),
    (
        "expose of a wrong protocol",
        "FROM scratch\nEXPOSE 80/xyz\n",
    ),
    ("expose of a wrong range", "FROM scratch\nEXPOSE 90-80\n"),
    ("healthcheck unknown type", "FROM scratch\nHEALTHCHECK x\n"),
    (
        "healthcheck with a negative",
        "FROM scratch\nHEALTHCHECK --retries=-1 CMD x\n",
    ),
    (
        "healthcheck too short",
        "FROM scratch\nHEALTHCHECK --interval=1us CMD x\n",
    ),
    ("add without a source", "FROM scratch\nADD x\n"),
];

/// Dockerfiles that ours refuses on purpose: Docker drops all files but one, takes another file than
/// the one named, or takes a mode for something else.
pub(crate) const STRICTER: &[(&str, &str)] = &[
    ("several to one file", "FROM scratch\nCOPY a.txt b.txt /x\n"),
    (
        "wildcard of several to one file",
        "FROM scratch\nCOPY *.txt /x\n",
    ),
    ("outside of the context", "FROM scratch\nCOPY ../a.txt /x\n"),
    ("bad chmod", "FROM scratch\nCOPY --chmod=9 a.txt /x\n"),
];
