//! One python3 process that judges all documents.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Reads a document in hexadecimal per line, answers with its canonical bytes in hexadecimal or `-`.
///
/// The hooks refuse at once what `dumps` would refuse at the end, so that a fault inside a member that a later
/// duplicate replaces is refused as well: stricter than `json`, and the one place where we are so on purpose.
const SCRIPT: &str = r#"
import json, math, sys

def refuse(token):
    raise ValueError(token)

def finite(token):
    value = float(token)
    return value if math.isfinite(value) else refuse(token)

def encodable(value):
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, list):
        for item in value:
            encodable(item)

def members(pairs):
    for key, value in pairs:
        encodable(key)
        encodable(value)
    return dict(pairs)

for line in sys.stdin.buffer:
    try:
        text = bytes.fromhex(line.decode("ascii")).decode("utf-8")
        value = json.loads(text, parse_float=finite, parse_constant=refuse, object_pairs_hook=members)
        encodable(value)
        rendered = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        sys.stdout.write(rendered.encode("utf-8").hex() + "\n")
    except ValueError:
        sys.stdout.write("-\n")
"#;

/// The canonical bytes of each document, or nothing where Python refuses it.
pub(crate) fn judge(documents: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
    let mut python = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 must be installed: the comparison cannot be skipped");
    let mut input = python.stdin.take().expect("piped");
    let output = BufReader::new(python.stdout.take().expect("piped"));
    let verdicts = std::thread::scope(|scope| {
        scope.spawn(move || {
            for document in documents {
                writeln!(input, "{}", hex::encode(document)).expect("python3 reads on");
            }
        });
        output.lines().map(|line| verdict(&line.expect("python3 writes ASCII"))).collect()
    });
    assert!(python.wait().expect("python3 was started here").success(), "python3 failed");
    verdicts
}

fn verdict(line: &str) -> Option<Vec<u8>> {
    (line != "-").then(|| hex::decode(line).expect("python3 writes hexadecimal"))
}
