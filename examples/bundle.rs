//! Bundles by hand, for measurements of `peer get`: `bundle pack DIR FILE` makes one of a directory of files, and
//! `bundle ticket TICKET` says of a ticket that its file is one.
//!
//! ```console
//! $ cargo run --example bundle -- pack photos photos.bundle
//! $ peer share photos.bundle --relay localhost
//! $ cargo run --example bundle -- ticket TICKET
//! ```

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
};

use relay::protocol::{
    Ticket, TicketKind,
    bundle::{Entry, Index, Kind},
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pack", directory, file] => pack(directory.as_ref(), file.as_ref()),
        ["ticket", ticket] => {
            let ticket: Ticket = ticket.parse()?;
            println!("{}", ticket.with_kind(TicketKind::Bundle));
            Ok(())
        }
        _ => Err("usage: bundle pack DIR FILE, or bundle ticket TICKET".into()),
    }
}

fn pack(directory: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut found = Vec::new();
    find(directory, &mut found)?;
    let names: Vec<Vec<u8>> = found
        .iter()
        .map(|path| Ok(path.strip_prefix(directory)?.as_os_str().as_bytes().to_vec()))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let mut entries = Vec::new();
    for (path, name) in found.iter().zip(&names) {
        let metadata = fs::metadata(path)?;
        let is_executable = metadata.permissions().mode() & 0o100 != 0;
        let kind = match metadata.is_dir() {
            true => Kind::Directory,
            false => Kind::File { size_bytes: metadata.len(), is_executable },
        };
        entries.push(Entry { path: name, kind, preserved: None });
    }
    let index = Index::new(entries)?;
    let mut out = BufWriter::new(File::create(file)?);
    out.write_all(index.header())?;
    for entry in index.entries().filter(|entry| entry.kind != Kind::Directory) {
        let path = directory.join(std::ffi::OsStr::from_bytes(entry.path));
        io::copy(&mut File::open(path)?, &mut out)?;
    }
    Ok(out.into_inner()?.sync_all()?)
}

fn find(directory: &Path, found: &mut Vec<std::path::PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        found.push(entry.path());
        if entry.file_type()?.is_dir() {
            find(&entry.path(), found)?;
        }
    }
    Ok(())
}
