//! Dockerfiles for every engine that has `BuildKit`.

/// Dockerfiles that both must build to the same image.
pub(crate) const SAME: &[(&str, &str)] = &[
    ("file to directory", "FROM scratch\nCOPY a.txt /x/\n"),
    ("file to file", "FROM scratch\nCOPY a.txt /x/y\n"),
    ("file to root", "FROM scratch\nCOPY a.txt /\n"),
    (
        "relative destination",
        "FROM scratch\nWORKDIR /w\nCOPY a.txt .\nCOPY b.txt sub/\n",
    ),
    (
        "dot destination",
        "FROM scratch\nWORKDIR /w\nCOPY a.txt ./\nCOPY dir ./dir/.\n",
    ),
    ("two files", "FROM scratch\nCOPY a.txt b.txt /x/\n"),
    ("directory contents", "FROM scratch\nCOPY dir /x\n"),
    (
        "directory contents with slash",
        "FROM scratch\nCOPY dir/ /x/\n",
    ),
    ("directory to root", "FROM scratch\nCOPY dir /\n"),
    ("whole context", "FROM scratch\nCOPY . /all/\n"),
    ("nested directory", "FROM scratch\nCOPY dir/sub /deep/er/\n"),
    ("directory and file", "FROM scratch\nCOPY dir a.txt /x/\n"),
    ("empty directory", "FROM scratch\nCOPY empty /x/\n"),
    ("star", "FROM scratch\nCOPY *.txt /x/\n"),
    (
        "copied system directories",
        "FROM scratch\nCOPY base /\nWORKDIR /var/tmp\n",
    ),
    ("star in directory", "FROM scratch\nCOPY dir/* /x/\n"),
    ("star matches directories", "FROM scratch\nCOPY d* /x/\n"),
    ("question mark", "FROM scratch\nCOPY ?.txt /x/\n"),
    ("class", "FROM scratch\nCOPY [ab].txt /x/\n"),
    ("negated class", "FROM scratch\nCOPY [^b].txt /x/\n"),
    ("escaped bracket", "FROM scratch\nCOPY weird[[]1].txt /x/\n"),
    ("star between", "FROM scratch\nCOPY dir/s*/three /x/\n"),
    ("hidden files", "FROM scratch\nCOPY .hid* /x/\n"),
    (
        "json form",
        "FROM scratch\nCOPY [\"with space.txt\", \"/x y/\"]\n",
    ),
    ("non-ascii", "FROM scratch\nCOPY ü.txt /ö/\n"),
    ("link to file", "FROM scratch\nCOPY linkfile /x/\n"),
    ("link to directory", "FROM scratch\nCOPY linkdir /x/\n"),
    (
        "link to nowhere inside directory",
        "FROM scratch\nCOPY links /x/\n",
    ),
    (
        "link inside directory",
        "FROM scratch\nCOPY dir /x/\nCOPY a.txt /x/link\n",
    ),
    ("ignored files", "FROM scratch\nCOPY docs /x/\n"),
    (
        "ignored directory with exception",
        "FROM scratch\nCOPY secret /x/\n",
    ),
    (
        "chown numbers",
        "FROM scratch\nCOPY --chown=1000:1001 dir /x/\n",
    ),
    (
        "chown user only",
        "FROM scratch\nCOPY --chown=1000 a.txt /new/dir/\n",
    ),
    (
        "chown group only",
        "FROM scratch\nCOPY --chown=:1001 a.txt /new/dir/\n",
    ),
    ("chmod file", "FROM scratch\nCOPY --chmod=0750 a.txt /x/\n"),
    (
        "chmod directory",
        "FROM scratch\nCOPY --chmod=0700 dir /x/\n",
    ),
    (
        "later file wins",
        "FROM scratch\nCOPY a.txt /x\nCOPY b.txt /x\n",
    ),
    (
        "merged directories",
        "FROM scratch\nCOPY dir /x/\nCOPY docs /x/\n",
    ),
    (
        "owner of parents stays",
        "FROM scratch\nCOPY a.txt /p/a\nCOPY --chown=5 b.txt /p/b\n",
    ),
    (
        "copy onto own directory",
        "FROM scratch\nCOPY dir /x\nCOPY a.txt /x\n",
    ),
    (
        "system directories",
        "FROM scratch\nCOPY a.txt /tmp/\nCOPY --chown=3 b.txt /usr/bin/\n",
    ),
    (
        "workdir makes directories",
        "FROM scratch\nWORKDIR /a/b\nWORKDIR c\nWORKDIR ../d\n",
    ),
    (
        "workdir of user",
        "FROM scratch\nUSER 1000:50\nWORKDIR /home/app\n",
    ),
    (
        "workdir of user without group",
        "FROM scratch\nUSER 1000\nWORKDIR /home/app/x\n",
    ),
    (
        "workdir exists",
        "FROM scratch\nCOPY --chown=9 dir /x/\nUSER 4\nWORKDIR /x\n",
    ),
    (
        "workdir with variable",
        "FROM scratch\nENV D=/data\nWORKDIR $D/${E:-x}\nCOPY a.txt .\n",
    ),
    (
        "volume",
        "FROM scratch\nCOPY a.txt /x/\nVOLUME /data /x\nVOLUME [\"/j son\"]\n",
    ),
    (
        "env forms",
        "FROM scratch\nENV A=1 B=\"two words\" C=a\\ b\nENV D some old form\nENV A=2\n",
    ),
    (
        "env quotes",
        "FROM scratch\nENV A='$X' B=\"$PATH:/x\" C=\"say \\\"hi\\\"\" D=\n",
    ),
    (
        "env does not see itself",
        "FROM scratch\nENV A=1\nENV A=2 B=$A C=${A}x\n",
    ),
    (
        "env defaults",
        "FROM scratch\nENV E=\nENV A=${U:-d} B=${E:-d} C=${A:+a} F=${PATH:+p}\n",
    ),
    (
        "env escapes",
        "FROM scratch\nENV A=\\$PATH B=\"\\$PATH\" C='\\$' D=a\\\\b\n",
    ),
    (
        "arg",
        "ARG G=global\nFROM scratch\nARG G\nARG L=local\nARG N\nENV A=$G B=$L C=$N D=$U\n",
    ),
    (
        "arg default of arg",
        "FROM scratch\nARG A=1\nARG B=${A}2\nENV X=$B\nCOPY ${A:+a.txt} /x/\n",
    ),
    (
        "global arg is not in scope",
        "ARG G=global\nFROM scratch\nENV A=${G:-unset}\n",
    ),
    (
        "env over arg",
        "FROM scratch\nARG A=arg\nENV A=env\nENV B=$A\n",
    ),
    (
        "platform arguments",
        "FROM scratch\nARG TARGETARCH\nARG TARGETOS\nENV P=$TARGETOS/$TARGETARCH\n",
    ),
    (
        "label",
        "FROM scratch\nLABEL a=1 \"b c\"=\"d e\"\nLABEL multi=\"x \\\n  y\"\nENV V=v\nLABEL e=$V\n",
    ),
    (
        "expose",
        "FROM scratch\nEXPOSE 80 53/udp\nEXPOSE 8000-8002/tcp\nENV P=90\nEXPOSE $P\n",
    ),
    ("cmd exec", "FROM scratch\nCMD [\"a\", \"$B\"]\n"),
    ("cmd shell", "FROM scratch\nCMD echo  $HOME \"x\"\n"),
    (
        "entrypoint and cmd",
        "FROM scratch\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\n",
    ),
    (
        "cmd before entrypoint",
        "FROM scratch\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n",
    ),
    (
        "shell",
        "FROM scratch\nSHELL [\"/bin/x\", \"-y\"]\nCMD a b\nENTRYPOINT c\n",
    ),
    (
        "shell after cmd",
        "FROM scratch\nCMD a\nSHELL [\"/bin/x\"]\n",
    ),
    (
        "healthcheck",
        "FROM scratch\nHEALTHCHECK --interval=1m --timeout=2s --start-period=3s --retries=4 CMD [\"x\", \"y\"]\n",
    ),
    (
        "healthcheck shell",
        "FROM scratch\nSHELL [\"/s\"]\nHEALTHCHECK CMD curl $X || exit 1\n",
    ),
    ("healthcheck none", "FROM scratch\nHEALTHCHECK NONE\n"),
    ("stopsignal", "FROM scratch\nSTOPSIGNAL SIGQUIT\n"),
    ("user", "FROM scratch\nENV U=12\nUSER $U:13\n"),
    (
        "maintainer",
        "FROM scratch\nMAINTAINER Some One <some@example.org>\n",
    ),
    (
        "case and comments",
        "# c\nfrom scratch\n  # c\ncOpY a.txt \\\n# inside\n\n   b.txt \\\n /x/\n",
    ),
    (
        "escape directive",
        "# escape=`\nFROM scratch\nCOPY a.txt `\n  /x/\nENV A=a\\b B=`$C\n",
    ),
    (
        "windows line ends",
        "FROM scratch\r\nCOPY a.txt \\\r\n  /x/\r\nENV A=b\r\n",
    ),
    ("tabs", "FROM\tscratch\nCOPY\ta.txt\t\t/x/\nENV\tA=b\tC=d\n"),
    (
        "stages",
        "FROM scratch AS one\nCOPY --chown=5:6 dir /x/\nCOPY --chmod=0600 a.txt /y\nFROM scratch\nCOPY --from=one /x/sub /z/\nCOPY --from=0 /y /x/o* /w/\n",
    ),
    (
        "stage owners change",
        "FROM scratch AS one\nCOPY --chown=5 a.txt /y\nFROM scratch\nCOPY --from=one --chown=8:9 /y /z\n",
    ),
    (
        "stage on stage",
        "FROM scratch AS one\nARG A=1\nENV E=e\nCOPY a.txt /x\nCMD [\"c\"]\nFROM one\nENV B=$A$E\nENTRYPOINT [\"e\"]\nCOPY b.txt /y\n",
    ),
    (
        "unused stage",
        "FROM scratch AS unused\nCOPY no-such-file /x\nFROM scratch\nCOPY a.txt /x\n",
    ),
    (
        "stage by variable",
        "ARG S=one\nFROM scratch AS one\nCOPY a.txt /x\nFROM ${S}\nCOPY b.txt /y\n",
    ),
    ("add of files", "FROM scratch\nADD a.txt dir /x/\n"),
    (
        "base image",
        "FROM deploy-image-test-base:1\nCOPY a.txt /app/\n",
    ),
    (
        "base image configuration",
        "FROM deploy-image-test-base:1\nENV PATH=/x:$PATH\nLABEL own=1\nCMD [\"own\"]\nEXPOSE 2\n",
    ),
    (
        "base image entrypoint",
        "FROM deploy-image-test-base:1\nENTRYPOINT [\"own\"]\n",
    ),
    (
        "base image names",
        "FROM deploy-image-test-base:1\nCOPY --chown=app:staff a.txt /app/\nCOPY --chown=app b.txt /app/\n",
    ),
    (
        "base image user",
        "FROM deploy-image-test-base:1\nUSER app\nWORKDIR /work\n",
    ),
    (
        "base image workdir",
        "FROM deploy-image-test-base:1\nCOPY a.txt .\nWORKDIR more\n",
    ),
    (
        "base image linked directory",
        "FROM deploy-image-test-base:1\nCOPY script.sh /usr/bin/\nCOPY a.txt /tmp/x/\n",
    ),
    (
        "base image directory without slash",
        "FROM deploy-image-test-base:1\nCOPY script.sh /usr/bin\n",
    ),
    (
        "own passwd",
        "FROM scratch\nCOPY base/etc/passwd /etc/passwd\nCOPY base/etc/group /etc/group\nCOPY --chown=app:staff a.txt /x/\n",
    ),
    (
        "unmatched pattern beside a file",
        "FROM scratch\nCOPY a.txt no-such-* /x/\n",
    ),
    ("add unknown suffix", "FROM scratch\nADD b.txt /x/y.tar\n"),
];
