//! How the file is read: lines, comments, directives, variables and where they are in scope; and
//! the corners of `COPY` that the plain cases leave out.

/// Dockerfiles that both must build to the same image.
pub(crate) const GRAMMAR: &[(&str, &str)] = &[
    // Lines.
    (
        "continued at the end of the file",
        "FROM scratch\nCOPY a.txt /x/ \\",
    ),
    (
        "continued into an empty line at the end",
        "FROM scratch\nENV A=b \\\n\n",
    ),
    (
        "spaces after the escape",
        "FROM scratch\nENV A=b \\  \n  C=d \\\t\n  E=f\n",
    ),
    (
        "escape inside a word",
        "FROM scratch\nENV A=on\\\ne B=tw\\\no\n",
    ),
    (
        "two escapes do not continue",
        "FROM scratch\nENV A=b\\\\\nENV C=d\n",
    ),
    (
        "three escapes at the end",
        "FROM scratch\nENV A=b\\\\\\\nUSER 1\n",
    ),
    (
        "comment inside a continued line",
        "FROM scratch\nENV A=b \\\n# one\n   # two\n\n\n  C=d\n",
    ),
    (
        "comment as the last continued line",
        "FROM scratch\nENV A=b \\\n# end\n",
    ),
    (
        "comment sign inside a line",
        "FROM scratch\nENV A=b#c D=#e\nLABEL f=# g=h\n",
    ),
    (
        "indented comment and instruction",
        "FROM scratch\n\t # c\n \t ENV A=b\n",
    ),
    (
        "escape directive and windows paths",
        "# escape=`\nFROM scratch\nENV A=C:\\dir B=`\nLABEL c=\"d`\"e\" f='g`h'\n",
    ),
    (
        "escape directive continues and escapes",
        "# escape = `\nFROM scratch\nENV A=a` b C=d `\n  E=f\\\nUSER 1\n",
    ),
    (
        "directive below a comment is a comment",
        "# c\n# escape=`\nFROM scratch\nENV A=a\\ b\n",
    ),
    (
        "directive below an empty line is a comment",
        "\n# escape=`\nFROM scratch\nENV A=a\\ b\n",
    ),
    (
        "directive after an unknown one",
        "# other=x\n# escape=`\nFROM scratch\nENV A=a\\ b C=`d\n",
    ),
    (
        "directive without spaces",
        "#escape=`\nFROM scratch\nENV A=a` b\n",
    ),
    ("no line end at the end", "FROM scratch\nENV A=b"),
    (
        "instruction in any case",
        "FrOm scratch aS one\neNv A=b\nwOrKdIr /x\nuser 4\nfrom one\nlabel c=d\n",
    ),
    // Variables.
    (
        "arg before from and after",
        "ARG A=1\nARG B=${A}2\nFROM scratch\nARG B\nENV C=$A D=$B\n",
    ),
    (
        "arg before from with another default after",
        "ARG A=1\nFROM scratch\nARG A=2\nENV B=$A\n",
    ),
    (
        "arg used before it is declared",
        "FROM scratch\nENV B=x$A\nARG A=1\nENV C=x$A\n",
    ),
    (
        "arg in each stage anew",
        "ARG A=1\nFROM scratch AS one\nARG A\nENV B=$A\nFROM scratch\nENV C=x$A\nARG A\nENV D=x$A\n",
    ),
    (
        "arg of a parent stage is in scope",
        "FROM scratch AS one\nARG A=1\nFROM one\nENV B=$A\n",
    ),
    ("arg twice", "FROM scratch\nARG A=1\nARG A=2\nENV B=$A\n"),
    (
        "arg twice and without default",
        "FROM scratch\nARG A=1\nARG A\nENV B=x$A\n",
    ),
    (
        "several args on a line",
        "ARG G=1 H=${G}2\nFROM scratch\nARG H\nARG A=1 B=${A}2 C\nENV D=$A$B$C E=$H\n",
    ),
    (
        "arg after env",
        "FROM scratch\nENV A=env\nARG A=arg\nENV B=$A\n",
    ),
    (
        "arg quoted",
        "FROM scratch\nARG A=\"x y\" B='$A' C=a\\ b\nENV D=$A E=$B F=$C\n",
    ),
    (
        "arg with nothing",
        "FROM scratch\nARG A=\nENV B=${A-unset} C=${A:-empty}\n",
    ),
    (
        "arg of an env of the base",
        "FROM deploy-image-test-base:1\nARG BASE=arg\nENV B=$BASE\n",
    ),
    (
        "env of a stage",
        "FROM scratch AS one\nENV A=1\nFROM one\nENV B=$A\nFROM scratch\nENV C=x$A\n",
    ),
    (
        "env continued with quotes",
        "FROM scratch\nENV A=\"b \\\n c\" D='e \\\n f'\n",
    ),
    (
        "env old form with quotes",
        "FROM scratch\nENV A \"b c\" d\nENV E f\\ g  h\nENV I $A'j'\n",
    ),
    ("env old form continued", "FROM scratch\nENV A b \\\n  c\n"),
    (
        "env with equals in its value",
        "FROM scratch\nENV A=b=c D==e\nENV F \"g=h\"\n",
    ),
    (
        "env name from a variable",
        "FROM scratch\nENV N=M\nENV $N=1 ${N}x=2\n",
    ),
    (
        "unicode",
        "FROM scratch\nENV Ä=ü B=\"日本\"\nLABEL ключ=значение\n",
    ),
    (
        "label continued, quoted, dotted",
        "FROM scratch\nLABEL a.b-c/d=\"e f\" \\\n  'g'=h \"i\"=\"\\\"j\\\"\"\n",
    ),
    ("label old form", "FROM scratch\nLABEL a b c\n"),
    (
        "nested defaults",
        "FROM scratch\nENV A=${U:-${V:-${W:-deep}}} B=${U-} C=${PATH:+${U:-x}}\n",
    ),
    (
        "variable in a json list",
        "FROM scratch\nENV A=a.txt\nCOPY [\"$A\", \"/x y/${A}\"]\n",
    ),
    (
        "variable in expose and volume",
        "FROM scratch\nENV P=80 V=/v\nEXPOSE $P/tcp ${P}81\nVOLUME $V ${V}2\n",
    ),
    (
        "variable in user and stopsignal",
        "FROM scratch\nENV U=5 S=SIGINT\nUSER ${U}\nSTOPSIGNAL $S\n",
    ),
    (
        "variable in chown",
        "FROM scratch\nARG U=5\nENV G=6\nCOPY --chown=$U:${G} a.txt /x/\n",
    ),
    (
        "variable in from",
        "ARG B=scra\nARG E=tch\nFROM ${B}${E} AS one\nCOPY a.txt /x\nFROM $UNSET${E:+one}\nENV A=b\n",
    ),
    // Instructions.
    (
        "cmd with odd spaces",
        "FROM scratch\nCMD   echo   a  b   \n",
    ),
    (
        "cmd with single quotes is no list",
        "FROM scratch\nCMD ['a', 'b']\n",
    ),
    (
        "cmd list with escapes",
        "FROM scratch\nCMD [ \"a\\tb\" , \"\\u00fc\", \"c\\\\d\" ]\n",
    ),
    (
        "cmd list continued",
        "FROM scratch\nCMD [\"a\", \\\n  \"b\"]\n",
    ),
    ("cmd empty list", "FROM scratch\nCMD [\"x\"]\nCMD []\n"),
    ("cmd twice", "FROM scratch\nCMD a\nCMD [\"b\"]\n"),
    (
        "entrypoint shell form",
        "FROM scratch\nENTRYPOINT exec  top -b\nCMD [\"x\"]\n",
    ),
    (
        "entrypoint of a stage drops its cmd",
        "FROM scratch AS one\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\nFROM one\nENTRYPOINT [\"f\"]\n",
    ),
    (
        "cmd of a stage stays without an entrypoint",
        "FROM scratch AS one\nCMD [\"c\"]\nFROM one\nUSER 3\n",
    ),
    (
        "healthcheck of a stage switched off",
        "FROM scratch AS one\nHEALTHCHECK CMD x\nFROM one\nHEALTHCHECK NONE\n",
    ),
    (
        "healthcheck in lower case",
        "FROM scratch\nhealthcheck --retries=1 cmd x  y\n",
    ),
    (
        "healthcheck zero",
        "FROM scratch\nHEALTHCHECK --interval=0 --retries=0 CMD x\n",
    ),
    (
        "expose protocols and doubles",
        "FROM scratch\nEXPOSE 80/TCP 80 80/udp 53/sctp\n",
    ),
    ("stopsignal forms", "FROM scratch\nSTOPSIGNAL 9\n"),
    ("stopsignal without sig", "FROM scratch\nSTOPSIGNAL term\n"),
    ("user with spaces", "FROM scratch\nUSER   7:8   \n"),
    (
        "workdir forms",
        "FROM scratch\nWORKDIR /a//b/./c/../d/\nWORKDIR ./e\n",
    ),
    (
        "workdir with spaces",
        "FROM scratch\nWORKDIR /a b/c\nCOPY a.txt .\n",
    ),
    ("workdir quoted", "FROM scratch\nWORKDIR \"/a b\"\n"),
    (
        "volume list and words",
        "FROM scratch\nVOLUME /a /b\nVOLUME [\"/c d\"]\nVOLUME /a\n",
    ),
    // COPY and its corners.
    (
        "absolute source",
        "FROM scratch\nCOPY /a.txt /dir/one /x/\n",
    ),
    (
        "source with dots",
        "FROM scratch\nCOPY ./dir/../a.txt dir/./sub/.. /x/\n",
    ),
    (
        "source with doubled slashes",
        "FROM scratch\nCOPY dir//sub///three /x//y//\n",
    ),
    (
        "destination with dots",
        "FROM scratch\nWORKDIR /w/v\nCOPY a.txt ../b/./c\nCOPY b.txt ..\n",
    ),
    (
        "destination exists as a directory",
        "FROM scratch\nCOPY dir /x/\nCOPY a.txt /x/sub\n",
    ),
    (
        "two directories and a file",
        "FROM scratch\nCOPY dir docs a.txt /x/\n",
    ),
    (
        "wildcard and plain",
        "FROM scratch\nCOPY docs/*.md a.txt /x/\n",
    ),
    (
        "wildcard of one file to a file",
        "FROM scratch\nCOPY a.t* /x\n",
    ),
    (
        "wildcard in the first directory",
        "FROM scratch\nCOPY d*s/public.md /x/\n",
    ),
    (
        "wildcard with a range",
        "FROM scratch\nCOPY [a-b].t[!x]t /x/\n",
    ),
    (
        "wildcard with an escape",
        "FROM scratch\nCOPY weird\\[1\\].txt /x/\n",
    ),
    (
        "wildcard of hidden files",
        "FROM scratch\nCOPY .h?dden* /x/\n",
    ),
    (
        "json with one wildcard",
        "FROM scratch\nCOPY [\"w*.txt\", \"/x/\"]\n",
    ),
    ("chown zero", "FROM scratch\nCOPY --chown=0 a.txt /x/\n"),
    (
        "chown of an existing directory",
        "FROM scratch\nCOPY dir /x/\nCOPY --chown=5:6 docs /x/\n",
    ),
    (
        "chown with many new directories",
        "FROM scratch\nCOPY --chown=5:6 a.txt /p/q/r/s\n",
    ),
    (
        "chown names and numbers",
        "FROM deploy-image-test-base:1\nCOPY --chown=app:7 a.txt /x/\nCOPY --chown=7:staff a.txt /y/\nCOPY --chown=:staff a.txt /z/\n",
    ),
    (
        "chown and chmod",
        "FROM scratch\nCOPY --chmod=0400 --chown=5 a.txt b.txt /x/\n",
    ),
    (
        "chmod three digits",
        "FROM scratch\nCOPY --chmod=640 dir /x/\n",
    ),
    (
        "chmod of set-user-id",
        "FROM scratch\nCOPY --chmod=4755 script.sh /x/\n",
    ),
    (
        "flags in any order",
        "FROM scratch AS one\nCOPY a.txt /a\nFROM scratch\nCOPY --chown=5 --from=one --chmod=600 /a /b\n",
    ),
    // Stages.
    (
        "stage by wildcard",
        "FROM scratch AS one\nCOPY dir /x/\nFROM scratch\nCOPY --from=one /x/t* /x/o?e /y/\n",
    ),
    (
        "stage root",
        "FROM scratch AS one\nCOPY dir /x/\nCOPY a.txt /\nFROM scratch\nCOPY --from=one / /all/\n",
    ),
    (
        "stage dot",
        "FROM scratch AS one\nWORKDIR /x\nCOPY dir .\nFROM scratch\nCOPY --from=one . /all/\n",
    ),
    (
        "stage link is followed",
        "FROM scratch AS one\nCOPY dir /x/\nFROM scratch\nCOPY --from=one /x/link /y\n",
    ),
    (
        "stage directory link is followed",
        "FROM scratch AS one\nCOPY base /\nCOPY script.sh /usr/bin/\nFROM scratch\nCOPY --from=one /bin/script.sh /y\n",
    ),
    (
        "stage of a stage",
        "FROM scratch AS one\nCOPY a.txt /a\nFROM scratch AS two\nCOPY --from=one /a /b\nFROM scratch\nCOPY --from=two /b /c\n",
    ),
    (
        "stage named twice",
        "FROM scratch AS one\nCOPY a.txt /a\nFROM one AS one\nCOPY b.txt /b\nFROM scratch\nCOPY --from=one /a /b /c/\n",
    ),
    (
        "stage name in another case",
        "FROM scratch AS One\nCOPY a.txt /a\nFROM scratch\nCOPY --from=ONE /a /b\n",
    ),
    (
        "stage with environment and workdir",
        "FROM scratch AS one\nENV A=b\nWORKDIR /w\nFROM scratch\nCOPY --from=one /w /x/\n",
    ),
    (
        "stage modes and owners",
        "FROM scratch AS one\nCOPY --chown=3:4 --chmod=711 dir /x/\nFROM scratch\nCOPY --from=one /x /y/\nCOPY --from=one --chown=8 /x/sub /z/\n",
    ),
];
