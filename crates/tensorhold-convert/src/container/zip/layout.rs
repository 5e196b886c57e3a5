//! How the entries lie in the file: apart from each other, and with nothing else between them.

use tensorhold_core::{ByteRange, Result, Source};

use super::ZipEntry;
use super::directory::refusal;
use super::end::End;
use crate::container::short;
use crate::finding::{Class, Finding, FindingKind};

/// Refuses entries that overlap; reports what belongs to no entry.
///
/// `extents` has for each entry all bytes that belong to it.
pub(super) fn check(
    source: &dyn Source,
    entries: &[ZipEntry],
    extents: &[ByteRange],
    end: &End,
) -> Result<Vec<Finding>> {
    let mut order: Vec<usize> = (0..extents.len()).collect();
    order.sort_unstable_by_key(|&index| extents[index]);
    let mut findings = Vec::new();
    let mut covered = 0;
    for &index in &order {
        let (name, extent) = (&entries[index].name, extents[index]);
        if extent.start < covered {
            return Err(refusal(
                name,
                "its bytes overlap those of another entry",
                extent,
            ));
        }
        findings.extend(unclaimed(
            source,
            ByteRange::new(covered, extent.start),
            name,
        )?);
        covered = extent.end;
    }
    let rest = ByteRange::new(covered, end.directory.start);
    findings.extend(unclaimed(source, rest, "the directory")?);
    findings.extend(around(source, end));
    findings.extend(second_ends(entries, end));
    Ok(findings)
}

/// Bytes before `next` that belong to no entry.
fn unclaimed(source: &dyn Source, bytes: ByteRange, next: &str) -> Result<Option<Finding>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut signature = [0; 4];
    let is_entry = bytes.len() >= 4 && {
        source.read_at(bytes.start, &mut signature)?;
        &signature == super::local::SIGNATURE
    };
    let (n_bytes, next) = (bytes.len(), short(next));
    let finding = if is_entry {
        let what = format!("an entry that the directory does not list lies before {next}");
        Finding::new(FindingKind::Container, Class::Dangerous, what)
    } else if bytes.start == 0 {
        let what = format!("{n_bytes} bytes that are no zip lie before the first entry, {next}");
        Finding::new(FindingKind::Polyglot, Class::Unknown, what)
    } else {
        let what = format!("{n_bytes} bytes that belong to no entry lie before {next}");
        Finding::new(FindingKind::ExtraBytes, Class::Unknown, what)
    };
    Ok(Some(finding.with_bytes(bytes)))
}

/// What is strange about the end of the archive.
fn around(source: &dyn Source, end: &End) -> Vec<Finding> {
    let mut findings = Vec::new();
    if end.shift > 0 {
        let what = format!(
            "the positions in the archive leave out its first {} bytes",
            end.shift
        );
        let finding = Finding::new(FindingKind::Polyglot, Class::Unknown, what);
        findings.push(finding.with_bytes(ByteRange::new(0, end.shift)));
    }
    if !end.comment.is_empty() {
        let what = format!("the archive has a comment of {} bytes", end.comment.len());
        let finding = Finding::new(FindingKind::ExtraBytes, Class::Harmless, what);
        findings.push(finding.with_bytes(end.comment));
    }
    let after = ByteRange::new(end.comment.end, source.size_bytes());
    if !after.is_empty() {
        let what = format!("{} bytes follow the end of the archive", after.len());
        let finding = Finding::new(FindingKind::ExtraBytes, Class::Unknown, what);
        findings.push(finding.with_bytes(after));
    }
    findings
}

/// Further ends of a directory, but for those of archives in the archive.
fn second_ends<'a>(entries: &'a [ZipEntry], end: &'a End) -> impl Iterator<Item = Finding> + 'a {
    let is_inside = |position: u64| {
        entries
            .iter()
            .any(|entry| (entry.data.start..entry.data.end).contains(&position))
    };
    let outside = end
        .earlier
        .iter()
        .filter(move |&&position| !is_inside(position));
    outside.map(|&position| {
        let what = "the file has a second end of a directory; other readers may go by it";
        let finding = Finding::new(FindingKind::Polyglot, Class::Dangerous, what);
        finding.with_bytes(ByteRange::new(position, position + 22))
    })
}
