use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

use super::*;

fn made(names: &[&str]) -> Made<rcgen::KeyPair> {
    let names = names.iter().map(|name| (*name).to_owned());
    generate_simple_self_signed(names.collect::<Vec<_>>()).unwrap()
}

fn files(folder: &Path, name: &str) -> TlsFiles {
    TlsFiles {
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    }
}

fn write(files: &TlsFiles, made: &Made<rcgen::KeyPair>) {
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
}

fn loaded(all: &[&[&str]]) -> (Vec<Vec<u8>>, Arc<Certificates>) {
    let folder = tempfile::tempdir().unwrap();
    let (mut ders, mut paths) = (Vec::new(), Vec::new());
    for (nth, names) in all.iter().enumerate() {
        let (made, files) = (made(names), files(folder.path(), &nth.to_string()));
        write(&files, &made);
        ders.push(made.cert.der().to_vec());
        paths.push(files);
    }
    (ders, Certificates::load(&paths, &[]).unwrap().0)
}

#[test]
fn the_first_that_is_valid_for_the_name_is_chosen() {
    let (ders, certificates) = loaded(&[
        &["api.example.com"],
        &["*.example.com", "example.org"],
        &["late.example.com"],
    ]);
    let check = |name: Option<&str>, nth: usize| {
        let chosen = certificates.choose(name).unwrap();
        assert_eq!(chosen.cert[0].as_ref(), ders[nth], "{name:?}");
    };
    check(Some("api.example.com"), 0);
    check(Some("API.Example.COM"), 0);
    check(Some("other.example.com"), 1);
    check(Some("example.org"), 1);
    // The wildcard stands before it.
    check(Some("late.example.com"), 1);
    // One label, and not none.
    check(Some("a.b.example.com"), 0);
    check(Some("example.com"), 0);
    check(Some("elsewhere.example"), 0);
    check(Some("not a name"), 0);
    check(None, 0);
}

#[test]
fn a_new_pair_is_taken_when_it_is_steady_and_a_bad_one_never() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), "site");
    let (first, second) = (made(&["a.example"]), made(&["a.example"]));
    write(&files, &first);
    let (certificates, mut watcher) =
        Certificates::load(std::slice::from_ref(&files), &[]).unwrap();
    let served = || certificates.choose(None).unwrap().cert[0].to_vec();
    let (old, new) = (first.cert.der().to_vec(), second.cert.der().to_vec());
    watcher.look();
    assert_eq!(served(), old);
    // The certificate is there, its key is not yet.
    std::fs::write(&files.cert, second.cert.pem()).unwrap();
    for _ in 0..3 {
        watcher.look();
        assert_eq!(served(), old, "the key is another's");
    }
    write(&files, &second);
    watcher.look();
    assert_eq!(served(), old, "seen once");
    watcher.look();
    assert_eq!(served(), new, "seen twice");
    for broken in ["", "-----BEGIN CERTIFICATE-----\n", "no PEM at all"] {
        std::fs::write(&files.cert, broken).unwrap();
        (0..3).for_each(|_| watcher.look());
        assert_eq!(served(), new, "{broken:?}");
    }
    std::fs::remove_file(&files.cert).unwrap();
    (0..3).for_each(|_| watcher.look());
    assert_eq!(served(), new, "no file");
    write(&files, &first);
    (0..2).for_each(|_| watcher.look());
    assert_eq!(served(), old, "back to one that is good");
}

#[test]
fn what_is_not_issued_yet_is_not_served_and_nothing_is_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let managed = ["a.example", "b.example"].map(|name| {
        let path = folder.path().join(format!("{name}.pem"));
        let files = TlsFiles {
            cert: path.clone(),
            key: path,
        };
        let name = name.to_owned();
        Managed { name, files }
    });
    let (certificates, mut watcher) = Certificates::load(&[], &managed).unwrap();
    assert!(certificates.choose(Some("a.example")).is_none());
    assert!(certificates.choose(None).is_none());
    let issued = made(&["b.example"]);
    let pem = issued.cert.pem() + &issued.signing_key.serialize_pem();
    std::fs::write(&managed[1].files.cert, &pem).unwrap();
    (0..2).for_each(|_| watcher.look());
    let served = |name: &str| certificates.choose(Some(name)).unwrap().cert[0].to_vec();
    assert_eq!(served("b.example"), issued.cert.der().to_vec());
    assert_eq!(served("a.example"), issued.cert.der().to_vec(), "the first");
    // A file of a listener that is wrong stops the start; one that can be ordered anew does not.
    std::fs::write(&managed[1].files.cert, "broken").unwrap();
    assert!(Certificates::load(&[], &managed).is_ok());
    let path = Path::new("b.pem");
    let validity = inspect(pem.as_bytes(), path, "b.example").unwrap();
    assert!(validity.not_before < validity.not_after);
    let other = inspect(pem.as_bytes(), path, "a.example").unwrap_err();
    assert_eq!(other.to_string(), "b.pem: it is not for a.example");
}

#[test]
fn what_is_wrong_is_said_with_the_file_and_without_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), "site");
    let (one, other) = (made(&["a.example"]), made(&["a.example"]));
    let told = |files: &TlsFiles| {
        let error = Certificates::load(std::slice::from_ref(files), &[]).err();
        error.unwrap().to_string()
    };
    let path = |path: &Path| path.display().to_string();
    assert!(told(&files).starts_with(&path(&files.cert)));
    write(&files, &one);
    let key = other.signing_key.serialize_pem();
    std::fs::write(&files.key, &key).unwrap();
    let mismatch = told(&files);
    assert!(mismatch.contains(&path(&files.cert)) && mismatch.contains(&path(&files.key)));
    std::fs::write(&files.key, "secret").unwrap();
    assert!(told(&files).starts_with(&path(&files.key)));
    assert!(!told(&files).contains("secret"));
    // As it comes out of an environment variable: the parser's own words would show all of it.
    std::fs::write(&files.key, key.replace('\n', " ")).unwrap();
    let one_line = told(&files);
    assert!(one_line.ends_with(BROKEN), "{one_line}");
    std::fs::write(&files.cert, key.replace('\n', " ")).unwrap();
    assert!(!told(&files).contains("80, 82"), "{}", told(&files));
    assert!(Certificates::load(&[], &[]).is_err());
}
