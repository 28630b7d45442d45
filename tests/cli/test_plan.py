"""From command line, environment and file to a plan: precedence, defaults, all mistakes at once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor.options import NODE_OPTIONS
from anchor.plan import Mistakes, Plan, RunCluster, RunNode, RunVerb, Show, plan_for
from anchor.settings import VERSION, Settings


def plan(line: str = "", **environ: str) -> Plan:
    """Plan a command line whose words hold no blanks."""
    return plan_for(line.split(), environ, "anchor")


def node(line: str, **environ: str) -> Settings:
    """Plan a command line that must make a node."""
    made = plan(line, **environ)
    assert isinstance(made, RunNode), made
    return made.settings


def mistakes(line: str, **environ: str) -> tuple[str, ...]:
    """Plan a command line that must not work."""
    made = plan(line, **environ)
    assert isinstance(made, Mistakes), made
    return made.lines


# --------------------------------------------------------------------- defaults


def test_the_first_command_of_the_readme_makes_a_node() -> None:
    """Flags arrive where they belong, and the rest is defaults."""
    settings = node("--id node1 --port 9001 --http-port 8001 --dir ./data/node1")
    assert settings == Settings(
        node_id="node1",
        port=9001,
        directory=Path("data/node1"),
        http_port=8001,
        advertise="127.0.0.1:9001",
        http_advertise="127.0.0.1:8001",
    )


def test_http_port_is_the_port_plus_1000() -> None:
    """Unless it is given."""
    assert node("--id a --port 9001").http_port == 10001
    assert node("--id a").http_port == 8001


def test_the_directory_is_named_after_the_node() -> None:
    """So that two nodes started carelessly do not meet in one directory."""
    assert node("--id a").directory == Path("data/a")


def test_equals_sign_and_blank_are_the_same() -> None:
    """``--port=1`` is ``--port 1``."""
    assert node("--id=a --port=5").port == node("--id a --port 5").port == 5


def test_peers_may_be_given_piecemeal_and_may_name_the_node_itself() -> None:
    """One list of all nodes can be given to each of them."""
    settings = node("--id a --port 5 --peers b:1,127.0.0.1:5 --peers c:2")
    assert settings.peers == ("b:1", "c:2")


def test_an_advertised_host_gets_the_ports_listened_on() -> None:
    """``--advertise`` alone is enough where ports are not mapped."""
    settings = node("--id a --port 5 --host 0.0.0.0 --advertise example.org")
    assert settings.address == "example.org:5"
    assert settings.http_address == "example.org:1005"
    settings = node("--id a --host :: --advertise [::1]:7 --http-advertise web:80 --http-port 9")
    assert settings.address == "[::1]:7"
    assert settings.http_address == "web:80"


# --------------------------------------------------------------------- precedence

VALUES = {
    "id": (["a", "b", "c"], "node_id"),
    "port": (["5001", "5002", "5003"], "port"),
    "heartbeat": (["10ms", "11", "12ms"], "heartbeat_ms"),
    "max-value-bytes": (["1KiB", "2KiB", "4096"], "max_value_bytes"),
    "log-level": (["debug", "error", "warning"], "log_level"),
    "host": (["10.0.0.1", "10.0.0.2", "localhost"], "host"),
}
PARSE = {option.name: option.parse for option in NODE_OPTIONS}

choices = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(texts) for name, (texts, _) in VALUES.items()}
)


@given(flags=choices, environment=choices, file=choices)
def test_flags_win_over_the_environment_and_that_over_the_file(
    flags: dict[str, str], environment: dict[str, str], file: dict[str, str]
) -> None:
    """For every option and every combination of sources the outermost one decides."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "anchor.toml")
        path.write_text("".join(f'{name} = "{text}"\n' for name, text in file.items()))
        environ = {f"ANCHOR_{k.upper().replace('-', '_')}": v for k, v in environment.items()}
        words = [f"--{name}={text}" for name, text in flags.items()]
        made = plan_for([*words, "--config", str(path)], environ, "anchor")
    expected = {**file, **environment, **flags}
    if "id" not in expected:
        assert isinstance(made, Mistakes)
        assert made.lines == ("--id: is missing; give this node a name, like --id node1",)
        return
    assert isinstance(made, RunNode)
    for name, text in expected.items():
        assert getattr(made.settings, VALUES[name][1]) == PARSE[name](text)


def test_a_file_can_hold_every_option(tmp_path: Path) -> None:
    """Numbers, lists and strings in TOML, names with '-' or '_'."""
    path = tmp_path / "anchor.toml"
    path.write_text(
        'id = "a"\nport = 5\nhttp_port = 6\ndir = "x"\npeers = ["b:1", "c:2"]\nhost = "::1"\n'
        'advertise = "h:1"\nhttp-advertise = "h:2"\nelection-timeout = "2s"\nheartbeat = 50\n'
        'request-timeout = 100\nmax-value-bytes = "2MiB"\nlog-level = "debug"\n'
        'log-format = "json"\nsnapshot-entries = 7000\nsnapshot_bytes = "1MiB"\n'
        'snapshot-rate = "10MB"\nmax-sessions = 9\n'
    )
    settings = node(f"--config {path}")
    assert settings == Settings(
        "a", 5, Path("x"), ("b:1", "c:2"), 6, "::1", "h:1", "h:2", 2000, 50, 100, 2 << 20,
        log_level="debug", log_format="json", snapshot_entries=7000, snapshot_bytes=1 << 20,
        snapshot_rate=10_000_000, max_sessions=9,
    )  # fmt: skip
    assert node("", ANCHOR_CONFIG=str(path)) == settings


def test_an_empty_variable_counts_as_not_set() -> None:
    """Compose files set variables to nothing."""
    assert node("--id a", ANCHOR_PEERS="", ANCHOR_PORT="").port == 7001


# --------------------------------------------------------------------- mistakes


def test_all_mistakes_of_all_sources_are_told_at_once(tmp_path: Path) -> None:
    """Every bad value is named with its source, even one that another source overrides."""
    path = tmp_path / "a.toml"
    path.write_text('port = "x"\nhttp-prot = 3\nhost = "a b"\npeers = [1]\nlog-level = true\n')
    lines = mistakes(
        f"--config {path} --id a/b --port 0 --htp-port 3 --heartbeat 1s extra --max-value-bytes",
        ANCHOR_ID="ok",
        ANCHOR_REQUEST_TIMEOUT="soon",
    )
    assert lines == (
        "--htp-port: no such flag; did you mean --http-port?",
        "--id a/b: an id is 1 to 64 of the letters A-Z a-z, digits, '.', '_' and '-'",
        "--port 0: a port is a number from 1 to 65535",
        "--max-value-bytes: needs a value: --max-value-bytes SIZE",
        "extra: is neither a flag nor a verb",
        "ANCHOR_REQUEST_TIMEOUT=soon: a duration is written like 1500ms, 1.5s or 1500",
        f"{path}: port = x: a port is a number from 1 to 65535",
        f"{path}: http-prot: no such setting; did you mean http-port?",
        f"{path}: host = 'a b': is not a host name; letters, digits, '-' and '.' make one",
        f"{path}: peers: must be a list of strings or a string",
        f"{path}: log-level: must be a string",
        (
            "--election-timeout (default 1s): must be at least 3 times the heartbeat, "
            "which is 1000ms; 3000ms or more"
        ),
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "--id: is missing"),
        ("--id", "--id: needs a value"),
        ("--id --port 5", "--id: needs a value"),
        ("--id a --id b", "--id: given 2 times"),
        ("--id a --port 64600", "--port 64600: plus 1000 is no port"),
        ("--id a --port 5 --http-port 5", "--http-port 5: is the same as --port"),
        ("--id a --host 0.0.0.0", "--host 0.0.0.0: listens everywhere"),
        ("--id a --host [::]", "--host [::]: listens everywhere"),
        ("--id a --advertise 0.0.0.0", "--advertise 0.0.0.0: nobody can dial"),
        ("--id a --peers localhost", "--peers localhost: localhost: has no port"),
        ("--id a --peers http://b:1", "--peers http://b:1: http://b:1: leave out http://"),
        ("--id a --advertise http://b", "--advertise http://b: leave out http://"),
        ("--id a --port 5 --peers 127.0.0.1:5", "--peers 127.0.0.1:5: names only this node"),
        ("--id a --election-timeout 250", "--election-timeout 250: must be at least 3 times"),
        ("--id a --heartbeat 400ms", "--election-timeout (default 1s): must be at least 3 times"),
        ("--id a --max-value-bytes 4MiB", "--max-value-bytes 4MiB: must be whole bytes"),
        ("--id a --log-level loud", "--log-level loud: must be one of debug"),
        ("--id a --config /nowhere/x.toml", "--config /nowhere/x.toml: cannot be read: No such"),
        ("--id a stauts", "stauts: is neither a flag nor a verb; did you mean status?"),
        ("stauts", "stauts: is neither a flag nor a verb; did you mean status?"),
        ("--di a", "--di: no such flag"),
        ("--config /nowhere/x.toml", "--config /nowhere/x.toml: cannot be read: No such"),
        ("--config", "--config: needs a value"),
        ("--id a --timeout 3", "--timeout: belongs to the verbs"),
        ("--id a --peers b:1 c:2", "c:2: is neither a flag nor a verb; put commas between"),
        ("--id a --port 5 --peers localhost:5", "--peers localhost:5: names only this node"),
        ("--id a --port 5 --peers LOCALHOST.:5", "--peers LOCALHOST.:5: names only this node"),
        ("--id a --port 5 --host ::1 --peers localhost:5", "--peers localhost:5: names only"),
        ("--id a --port 5 --host :: --advertise a --peers [::1]:5", "--peers [::1]:5: names only"),
        ("--id a --learner", "--learner yes: needs --peers"),
        ("--id a --replace", "--replace yes: needs --peers"),
        ("--id a --bootstrap-expect 3", "--bootstrap-expect 3: needs --peers"),
        ("--id a --bootstrap-expect 1 --peers b:1", "--bootstrap-expect 1: must be a number from"),
        ("--id a --bootstrap-expect 3 --peers b:1 --learner", "--learner yes: contradicts --boot"),
        ("--id a --peers b:1 --learner=maybe", "--learner maybe: is either yes or no"),
        ("--cluster 3 --learner", "--learner yes: contradicts --cluster 3"),
        ("--cluster 1", "--cluster 1: must be a number from 2 to 9"),
        ("--cluster 10", "--cluster 10: must be a number from 2 to 9"),
        ("--cluster 3 --id a", "--id a: contradicts --cluster 3"),
        ("--cluster 3 --peers a:1", "--peers a:1: contradicts --cluster 3"),
        ("--cluster 3 --advertise a:1", "--advertise a:1: contradicts --cluster 3"),
        ("--cluster 3 --port 65534", "--port 65534: 3 ports in a row from 65534 end past"),
        ("--cluster 3 --port 5 --http-port 7", "--http-port 7: the 3 ports from 7 and the 3"),
    ],
)
def test_a_mistake_is_named_by_its_flag_and_reason(line: str, expected: str) -> None:
    """Each line starts with the flag at fault; no mistake brings a second complaint with it."""
    (said,) = [line for line in mistakes(line) if "65535; begin" not in line or "--port" in line]
    assert said.startswith(expected)


def test_a_list_with_blanks_is_told_to_take_commas() -> None:
    """A blank makes no IPv6 address of two others."""
    made = plan_for(["--id", "a", "--peers", "b:1 c:2"], {}, "anchor")
    assert isinstance(made, Mistakes)
    assert made.lines == (
        "--peers 'b:1 c:2': b:1 c:2: holds a blank; put commas between addresses",
    )


def test_contradictions_with_cluster_are_seen_across_sources() -> None:
    """An id in the environment and --cluster as a flag are both named."""
    assert mistakes("--cluster 2", ANCHOR_ID="a") == (
        "ANCHOR_ID=a: contradicts --cluster 2: the nodes are named node1, node2 and so on",
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"port = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"x = " + b"[" * 5000, "is not TOML"),
        (b"http-port = 1\nhttp_port = 2", "http_port: given twice"),
        (b"config = 'x'", "config: no such setting"),
        (b"[port]\nx = 1", "port: must be a number or a string"),
        (b"port = 1.5", "port = 1.5: a port is a number"),
        (b"port = true", "port: must be a number or a string"),
        (b"id = 7", "id: must be a string"),
        (b"port = 1979-05-27", "port: must be a number or a string"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_file_and_key(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    """A broken file is one line too."""
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    (line,) = mistakes(f"--id a --config {path}")
    assert str(path) in line
    assert expected in line


def test_a_control_character_in_an_argument_cannot_forge_a_line() -> None:
    """What is echoed is escaped."""
    made = plan_for(["--id", "a\nanchor: all is well"], {"ANCHOR_PORT": "\x1b[2J"}, "anchor")
    assert isinstance(made, Mistakes)
    assert not any("\n" in line or "\x1b" in line for line in made.lines)


def test_unknown_variables_are_warned_of_and_ignored() -> None:
    """A misspelt variable does not stop a start, but does not go unseen either."""
    made = plan("--id a", ANCHOR_HTP_PORT="3", ANCHOR_SUPERVISED="plain", ANCHORAGE="x")
    assert isinstance(made, RunNode)
    assert made.warnings == (
        "ANCHOR_HTP_PORT: no such variable, ignored; did you mean ANCHOR_HTTP_PORT?",
    )


@given(st.lists(st.text(max_size=12) | st.sampled_from(["--port", "--id=a", "get", "--", "-h"])))
def test_any_command_line_leads_to_a_plan(words: list[str]) -> None:
    """Nothing that can be typed raises."""
    assert plan_for(words, {}, "anchor") is not None


# --------------------------------------------------------------------- clusters


def test_cluster_decides_everything_of_its_nodes() -> None:
    """Names, ports and directories count up from one."""
    made = plan("--cluster 3 --port 9001 --dir ./data --heartbeat 50 --host 0.0.0.0")
    assert isinstance(made, RunCluster)
    assert [node.node_id for node in made.nodes] == ["node1", "node2", "node3"]
    assert [node.port for node in made.nodes] == [9001, 9002, 9003]
    assert [node.http_port for node in made.nodes] == [10001, 10002, 10003]
    assert [node.directory for node in made.nodes] == [Path(f"data/node{n}") for n in (1, 2, 3)]
    assert made.nodes[0].address == "127.0.0.1:9001"
    assert all(node.heartbeat_ms == 50 and node.host != "127.0.0.1" for node in made.nodes)


def test_a_bare_cluster_is_where_the_verbs_look() -> None:
    """``--cluster 3`` and ``get`` meet at localhost:8001 without any flag."""
    made, verb = plan("--cluster 3"), plan("get k")
    assert isinstance(made, RunCluster)
    assert isinstance(verb, RunVerb)
    assert made.nodes[0].http_port == 8001
    assert verb.endpoints == ("localhost:8001",)


# --------------------------------------------------------------------- texts and verbs


def test_version_and_help_win_over_mistakes() -> None:
    """Who asks for help gets it, whatever else is wrong."""
    assert plan("--version") == Show(f"anchor {VERSION}")
    for line in ("--help", "-h", "help", "--port x --help"):
        made = plan(line)
        assert isinstance(made, Show)
        assert "--cluster 3" in made.text


def test_a_verb_takes_operands_and_options_in_any_order() -> None:
    """Options may come before the verb, too."""
    expected = RunVerb(
        "get", ("k",), ("a:1", "b:2"), timeout_ms=3000, patience_ms=3000, consistency="stale"
    )
    for line in (
        "get k --endpoints a:1,b:2 --timeout 3 --consistency stale",
        "--endpoints a:1,b:2 get --timeout=3s --consistency=STALE k",
    ):
        assert plan(line) == expected
    assert (
        plan("get k --consistency stale", ANCHOR_ENDPOINTS="a:1,b:2", ANCHOR_TIMEOUT="3")
        == expected
    )


def test_what_follows_two_dashes_is_taken_as_it_is() -> None:
    """A key may begin with a dash, and be a verb's name."""
    made = plan("put -- --id get")
    assert isinstance(made, RunVerb)
    assert made.operands == ("--id", "get")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("get", "get: is written get KEY"),
        ("get a b", "get: is written get KEY"),
        ("put a b c", "put: is written put KEY [VALUE]"),
        ("status x", "status: is written status"),
        ("del a --consistency stale", "--consistency: belongs to get"),
        ("get a --json", "--json: belongs to status, members and"),
        ("member add n4", "member add: is written member add ID ADDR"),
        ("member add n4 h", "member add: h: has no port"),
        ("member remove a/b", "member remove: a/b: an id is"),
        ("member", "member: is neither a flag nor a verb; say member add, member"),
        ("member remove n4 --learner", "--learner: belongs to a node; member remove takes"),
        ("leader n2", "leader: is written leader"),
        ("leader transfer n2 --json", "--json: belongs to status, members and leader, not to"),
        ("get a --port 3", "--port: belongs to a node; get takes --endpoints"),
        ("--port 3 status", "--port: belongs to a node; status takes --endpoints"),
        ("get a --prot 3", "--prot: no such flag"),
        ("get a --timeout abc", "--timeout abc: a duration is written like 1500ms, 1.5s or 3, wh"),
        ("get a --timeout 0", "--timeout 0: must be whole milliseconds"),
        ("get a --endpoints x", "--endpoints x: x: has no port"),
    ],
)
def test_a_verb_written_wrongly_is_a_usage_error(line: str, expected: str) -> None:
    """Exit code 2 and the flag or verb at fault."""
    assert mistakes(line)[0].startswith(expected)


def test_only_an_unknown_flag_is_answered_with_how_to_write_a_leading_dash() -> None:
    """The advice stands where it helps, not beside every other mistake."""
    for line, expected in (
        ("put k -v", True),
        ("get -k", True),
        ("put k v --timeout abc", False),
        ("get k --port 3", False),
        ("status -x", False),
    ):
        made = plan(line)
        assert isinstance(made, Mistakes)
        assert len(made.lines) == 1
        assert ("goes after '--'" in made.hint) == expected


def test_a_bad_variable_stops_only_the_verb_that_uses_it() -> None:
    """``status`` reads no keys, so it has no consistency."""
    assert isinstance(plan("status", ANCHOR_CONSISTENCY="foo"), RunVerb)
    assert mistakes("get k", ANCHOR_CONSISTENCY="foo")


def test_a_neighbour_on_another_loopback_address_is_somebody_else() -> None:
    """127.0.0.2 is this machine too, yet another address; so is another port."""
    assert node("--id a --port 5 --peers 127.0.0.2:5").peers == ("127.0.0.2:5",)
    assert node("--id a --port 5 --peers localhost:6").peers == ("localhost:6",)
    assert node("--id a --port 5 --host 10.0.0.1 --peers localhost:5").peers == ("localhost:5",)


def test_an_empty_key_is_a_usage_error() -> None:
    """The servers would refuse it too."""
    made = plan_for(["get", ""], {}, "anchor")
    assert isinstance(made, Mistakes)


def test_help_names_every_option_and_is_no_wider_than_a_terminal() -> None:
    """The table of options and the help cannot drift apart."""
    made = plan("--help")
    assert isinstance(made, Show)
    assert all(f"  {option.flag} {option.metavar}" in made.text for option in NODE_OPTIONS)
    assert max(map(len, made.text.splitlines())) <= 80
    for verb in ("get", "put", "del", "status", "members"):
        of_verb = plan(f"{verb} --help")
        assert isinstance(of_verb, Show)
        assert of_verb.text.startswith(f"anchor {verb}")
        assert max(map(len, of_verb.text.splitlines())) <= 80


def test_the_example_in_the_help_is_valid_toml() -> None:
    """What is shown can be copied."""
    (config,) = [option for option in NODE_OPTIONS if option.name == "config"]
    example = config.help.partition(": ")[2].removesuffix(" ...").replace(", peers", "\npeers")
    assert tomllib.loads(example) == {"port": 9001, "peers": ["a:9001"]}


def test_a_switch_needs_no_value_and_stands_wherever_other_options_do() -> None:
    """As a flag alone, in the environment as yes or no, in the file as a boolean."""
    line = "--id a --peers b:1"
    assert node(f"{line} --learner").learner
    assert node(f"--learner {line} --replace").replace
    assert not node(line).learner
    assert node(line, ANCHOR_LEARNER="true").learner
    assert not node(f"{line} --learner=no", ANCHOR_LEARNER="yes").learner
    assert node(f"{line} --bootstrap-expect 3").bootstrap_expect == 3
    with TemporaryDirectory() as directory:
        path = Path(directory) / "node.toml"
        path.write_text("learner = true\nreplace = false\n")
        settings = node(f"{line} --config {path}")
        assert (settings.learner, settings.replace) == (True, False)
        path.write_text("learner = 3\n")
        assert "must be true or false" in mistakes(f"{line} --config {path}")[0]


def test_verbs_of_two_words_are_found_among_flags() -> None:
    """And get the time that a change of the members may take."""
    made = plan("--endpoints a:1 member add n4 h:7004 --learner")
    assert isinstance(made, RunVerb)
    assert (made.verb, made.operands) == ("member add", ("n4", "h:7004"))
    assert made.as_learner
    assert made.timeout_ms == 35_000
    transfer = plan("leader transfer n2")
    assert isinstance(transfer, RunVerb)
    assert (transfer.verb, transfer.operands) == ("leader transfer", ("n2",))
    shown = plan("member promote --help")
    assert isinstance(shown, Show)
    assert "member promote ID" in shown.text
