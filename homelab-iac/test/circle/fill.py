"""Fills the services of a lab's machine with data that a restore must bring back exactly. The same numbers make the same data.

It runs on the machine, with Python's own library only.
"""
import base64, json, os, random, subprocess, sys, time, urllib.error, urllib.parse, urllib.request

want = json.loads(sys.argv[1])
rng = random.Random(20260131)
WORDS = "restore backup note river lamp garden tomato plan solar winter bread copper ledger garage birch kettle".split()


def text(n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def put(path, data, mode=0o640, uid=1000, gid=1000):
    with open(path, "wb") as f:
        f.write(data)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def folder(path, mode=0o750, uid=1000, gid=1000):
    os.makedirs(path, exist_ok=True)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def vault():
    root = "/srv/vault/notes"
    for i in range(want["files"]):
        d = "%s/%02d %s" % (root, i % 60, WORDS[i % 60 % 16])
        if i < 60:
            folder(d)
        put("%s/note %05d.md" % (d, i), ("# %s\n\n%s\n" % (text(4), text(rng.randrange(20, 200)))).encode(), rng.choice([0o640, 0o600, 0o644, 0o400]))
    odd = root + "/odd"
    folder(odd, 0o2770, 1000, 4711)
    for name in [b"\xff\xfe not utf-8", b"new\nline", b"-rf", b"*", b"?", b" leading", b"trailing ", "ünïcödé 日本 🌊".encode(), b"quote'\"$`\\", b"x" * 250, b"tab\there", b".hidden", b"a%b", b"{compose}"]:
        put(os.path.join(odd.encode(), name), b"odd: " + name)
    put(odd + "/empty", b"")
    os.symlink("empty", odd + "/link")
    os.symlink("/nowhere/at all", odd + "/dangling")
    os.symlink("..", odd + "/up")
    for name in ("link", "dangling", "up"):
        os.chown(odd + "/" + name, 1000, 1000, follow_symlinks=False)
    os.link(odd + "/empty", odd + "/hard")
    os.mkfifo(odd + "/pipe")
    put(odd + "/setuid", b"#!/bin/sh\n", 0o4755)
    put(odd + "/readonly", b"r", 0o000)
    put(odd + "/foreign", b"f", 0o640, 4711, 4712)
    put(odd + "/attributes", b"a")
    os.setxattr(odd + "/attributes", "user.note", b"kept \x00 too")
    os.setxattr(odd, "user.folder", b"yes")
    put(odd + "/acl", b"a")
    subprocess.run(["setfacl", "-m", "u:4711:rw", odd + "/acl"], check=True)
    put(odd + "/sparse", b"")
    with open(odd + "/sparse", "r+b") as f:
        f.seek(200 << 20)
        f.write(b"end")
    put(odd + "/old", b"o")
    os.utime(odd + "/old", ns=(1, 86400 * 10**9 + 123456789))
    put(odd + "/future", b"f")
    os.utime(odd + "/future", ns=(1, 4102444800 * 10**9 + 5))
    folder(root + "/empty folder", 0o700)


def photos():
    root = "/srv/photos"
    for i in range(max(1, want["files"] // 50)):
        d = "%s/20%02d/%02d" % (root, 10 + i % 16, 1 + i % 12)
        for part in (os.path.dirname(d), d):
            folder(part)
        put("%s/IMG_%04d.jpg" % (d, i), rng.randbytes(rng.randrange(20_000, 60_000)))
    left, n = want["extra"], 0
    while left > 0:
        size = min(left, 8 << 20)
        put("%s/RAW_%05d.dng" % (root, n), rng.randbytes(size))
        left, n = left - size, n + 1


def call(method, url, body=None, headers=None, form=False):
    data = None
    h = dict(headers or {})
    if body is not None:
        data = urllib.parse.urlencode(body).encode() if form else json.dumps(body).encode()
        h["Content-Type"] = "application/x-www-form-urlencoded" if form else "application/json"
    req = urllib.request.Request(url, data=data, method=method, headers=h)
    try:
        with urllib.request.urlopen(req, timeout=60) as r:
            said = r.read()
            return json.loads(said) if said[:1] in (b"{", b"[") else said
    except urllib.error.HTTPError as e:
        raise SystemExit("%s %s: %s: %s" % (method, url, e, e.read()[:500]))


def gitea():
    def inside(*argv):
        base = ["docker", "compose", "--project-directory", "/opt/homelab/services/gitea", "exec", "-T", "--user", "git", "gitea"]
        return subprocess.run(base + list(argv), check=True, capture_output=True, text=True).stdout.strip()

    inside("gitea", "admin", "user", "create", "--admin", "--username", "ada", "--password", "ada lovelace 1815", "--email", "ada@lab.example", "--must-change-password=false")
    token = inside("gitea", "admin", "user", "generate-access-token", "--username", "ada", "--scopes", "all", "--raw")
    api, auth = "http://127.0.0.1:3000/api/v1", {"Authorization": "token " + token}
    call("POST", api + "/orgs", {"username": "household"}, auth)
    for n in range(3):
        name = "repo-%d" % n
        call("POST", api + "/orgs/household/repos", {"name": name, "auto_init": True, "default_branch": "main", "private": n == 1}, auth)
        at = api + "/repos/household/" + name
        for i in range(5):
            call("POST", at + "/contents/" + urllib.parse.quote("docs/file %d.md" % i), {"content": base64.b64encode(text(50).encode()).decode(), "message": "add file %d" % i, "branch": "main"}, auth)
        call("POST", at + "/branches", {"new_branch_name": "feature/lamp", "old_branch_name": "main"}, auth)
        call("POST", at + "/contents/change.md", {"content": base64.b64encode(b"changed").decode(), "message": "change", "branch": "feature/lamp"}, auth)
        call("POST", at + "/tags", {"tag_name": "v1.%d" % n, "message": "first", "target": "main"}, auth)
        for i in range(10):
            issue = call("POST", at + "/issues", {"title": text(5), "body": text(40) + " \u2603 'quoted'"}, auth)
            call("POST", "%s/issues/%d/comments" % (at, issue["number"]), {"body": text(12)}, auth)
        call("POST", at + "/pulls", {"title": "a lamp", "head": "feature/lamp", "base": "main"}, auth)
        call("POST", at + "/releases", {"tag_name": "v1.%d" % n, "name": "release %d" % n, "body": text(9)}, auth)


def llm_runner():
    base, auth = "http://127.0.0.1:8080", {"Authorization": "Bearer " + want["token"]}
    call("POST", base + "/chats", {"text": "How do I connect Ollama?", "model": "vault"}, auth, form=True)
    until = time.time() + 60
    while True:
        chats = call("GET", base + "/api/chats", headers=auth)
        found = chats["chats"] if isinstance(chats, dict) else chats
        if found:
            said = call("GET", "%s/chats/%d/export.md" % (base, found[0]["id"]), headers=auth)
            if b"Ollama" in said and len(said) > 400:
                return
        if time.time() > until:
            raise SystemExit("llm-runner has not answered: %r" % (chats,))
        time.sleep(0.3)


for name in want["services"]:
    began = time.time()
    {"vault": vault, "photos": photos, "gitea": gitea, "llm-runner": llm_runner}[name]()
    print("%s filled in %.1f s" % (name, time.time() - began))
