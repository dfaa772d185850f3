//! What older engines do not know: heredocs, `--link`, patterns in variables.

/// Dockerfiles that both must build to the same image.
pub(crate) const MODERN: &[(&str, &str)] = &[
    (
        "heredoc to a file",
        "FROM scratch\nCOPY <<EOF /x/y\none\n  two\n\nEOF\nUSER 1\n",
    ),
    (
        "heredoc to a directory",
        "FROM scratch\nCOPY <<name.txt /x/\none\nname.txt\n",
    ),
    (
        "heredoc in the working directory",
        "FROM scratch\nWORKDIR /w\nCOPY <<f .\none\nf\n",
    ),
    (
        "heredoc with variables",
        "FROM scratch\nENV A=1\nARG B=2\nCOPY <<EOF /x\n$A ${B} ${C:-3} \\$A '$A' \"$B\" \\\\ \\n\nEOF\n",
    ),
    (
        "heredoc with a quoted name",
        "FROM scratch\nENV A=1\nCOPY <<\"EOF\" /x\n$A ${B} \\$A \\\\\nEOF\n",
    ),
    (
        "heredoc with a single-quoted name",
        "FROM scratch\nENV A=1\nCOPY <<'EOF' /x\n$A 'x' \"y\"\nEOF\n",
    ),
    (
        "heredoc without tabs",
        "FROM scratch\nCOPY <<-EOF /x\n\tone\n\t\ttwo\n  three\n\tEOF\n",
    ),
    (
        "heredoc with tabs",
        "FROM scratch\nCOPY <<EOF /x\n\tone\n\tEOF\nEOF\n",
    ),
    (
        "heredoc without tabs, quoted",
        "FROM scratch\nENV A=1\nCOPY <<-'EOF' /x\n\t$A\n\tEOF\n",
    ),
    (
        "two heredocs",
        "FROM scratch\nCOPY <<one <<two /x/\n1\none\n2\ntwo\n",
    ),
    (
        "heredoc and files",
        "FROM scratch\nCOPY a.txt <<one b.txt /x/\n1\none\n",
    ),
    ("empty heredoc", "FROM scratch\nCOPY <<EOF /x\nEOF\n"),
    (
        "heredoc with owner and mode",
        "FROM scratch\nCOPY --chown=5:6 --chmod=0750 <<EOF /x/y\none\nEOF\n",
    ),
    (
        "heredoc that looks like instructions",
        "FROM scratch\nCOPY <<EOF /x\nFROM y\n# comment\nRUN z \\\n\nEOF\nENV A=b\n",
    ),
    ("heredoc by add", "FROM scratch\nADD <<EOF /x\none\nEOF\n"),
    (
        "heredoc with windows line ends",
        "FROM scratch\r\nCOPY <<EOF /x\r\none\r\ntwo\r\nEOF\r\nUSER 1\r\n",
    ),
    (
        "heredoc and a continued line",
        "FROM scratch\nCOPY --chown=5 \\\n  <<EOF /x\none\nEOF\n",
    ),
    (
        "heredoc over an earlier file",
        "FROM scratch\nCOPY a.txt /x\nCOPY <<EOF /x\nnew\nEOF\n",
    ),
    (
        "heredoc in a stage",
        "FROM scratch AS one\nCOPY <<EOF /x\none\nEOF\nFROM scratch\nCOPY --from=one /x /y\n",
    ),
    (
        "heredoc with another escape",
        "# escape=`\nFROM scratch\nENV A=1\nCOPY <<EOF /x\n$A \\$A `$A\nEOF\n",
    ),
    (
        "link",
        "FROM scratch\nCOPY --link a.txt /x/\nCOPY --link dir /y/\n",
    ),
    (
        "link with owner and mode",
        "FROM scratch\nCOPY --link --chown=5:6 --chmod=600 a.txt /x/y/\n",
    ),
    (
        "link from a stage",
        "FROM scratch AS one\nCOPY --chown=3 dir /x/\nFROM scratch\nCOPY --link --from=one /x/sub /y/\n",
    ),
    ("link false", "FROM scratch\nCOPY --link=false a.txt /x/\n"),
    (
        "link onto what is there",
        "FROM scratch\nCOPY dir /x/\nCOPY --link a.txt /x/\n",
    ),
    (
        "link to the working directory",
        "FROM scratch\nWORKDIR /w\nCOPY --link a.txt sub/\n",
    ),
    (
        "healthcheck start interval",
        "FROM scratch\nHEALTHCHECK --start-interval=2s --start-period=9s CMD x\n",
    ),
    (
        "prefixes",
        "FROM scratch\nENV F=a/b/c.tar.gz\nENV A=${F#*/} B=${F##*/} C=${F%.*} D=${F%%.*} E=${F#x}\n",
    ),
    (
        "replacements",
        "FROM scratch\nENV F=a/b/a\nENV A=${F/a/x} B=${F//a/x} C=${F/\\//-} D=${F//\\//-} E=${F/x/y}\n",
    ),
    (
        "patterns with questions",
        "FROM scratch\nENV F=abcabc\nENV A=${F#?} B=${F%?c} C=${F#a*c} D=${F##a*c} E=${F/b?/x}\n",
    ),
    (
        "required and given",
        "FROM scratch\nENV A=1\nENV B=${A:?no} C=${A?no}\n",
    ),
    (
        "default without a colon",
        "FROM scratch\nENV E=\nENV A=${E-d} B=${U-d} C=${E+s} D=${U+s}\n",
    ),
    (
        "platform arguments in from",
        "FROM --platform=$TARGETPLATFORM scratch\nARG BUILDARCH\nARG TARGETPLATFORM\nENV A=$BUILDARCH B=$TARGETPLATFORM\n",
    ),
];
