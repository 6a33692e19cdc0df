package precheck

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/restic"
)

// A counter counts what is read through it.
type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	return n, err
}

// dumped hashes one file of a snapshot.
func dumped(ctx context.Context, r restic.Repo, snapshot, file string) (sum string, size int64, err error) {
	h := sha256.New()
	c := &counter{Writer: h}
	err = r.Dump(ctx, snapshot, file, c)
	return hex.EncodeToString(h.Sum(nil)), c.n, err
}

// vaultOpens reads the newest snapshot of the vault with nothing but what is in the kit.
func vaultOpens(ctx context.Context, l *look) (seen, error) {
	const cure = "mount the kit, or name its folder with --kit; it holds fast.password and fast.env for each repository (docs/homelab/precheck.md)"
	if l.Kit == "" {
		return seen{}, fault(cure, "the break-glass kit is not here")
	}
	i := slices.IndexFunc(l.Catalog, func(s catalog.Service) bool { return s.HasTag("vault") })
	if i < 0 {
		return seen{}, fault("give the service with the notes the tag vault", "no service of the catalog has the tag vault")
	}
	vault := l.Catalog[i]
	repo, snapshot, err := l.from(vault, l.KitRepo)
	if err != nil {
		var u unsigned
		if errors.As(err, &u) {
			return seen{}, err
		}
		return seen{}, fault(cure, "the kit cannot be used: %v", err)
	}
	for _, p := range vault.Backup.Paths {
		nodes, err := repo.List(ctx, snapshot.ID, p.Path)
		if err != nil {
			return seen{}, fault("put the right password and key into the kit", "the kit does not open the repository: %v", err)
		}
		files := slices.DeleteFunc(nodes, func(n restic.Node) bool { return n.Type != "file" || n.Size == 0 })
		if len(files) == 0 {
			continue
		}
		n := files[rand.IntN(len(files))]
		_, size, err := dumped(ctx, repo, snapshot.ID, n.Path)
		if err != nil || size != n.Size {
			return seen{}, fault("homelab backup check fast", "a file of %d bytes came back with %d: %v", n.Size, size, err)
		}
		return seen{fmt.Sprintf("snapshot %s was opened with the kit's password and key, and one of %d files read: %d bytes", snapshot.Short(), len(files), size), snapshot.Time}, nil
	}
	return seen{}, fault("look with homelab restore what the snapshot holds", "snapshot %s holds no file of the vault", snapshot.Short())
}

// dumpsMatch reads every dump of this machine's databases out of the backup and compares it with the manifest that was written with it.
func dumpsMatch(ctx context.Context, l *look) (seen, error) {
	var found seen
	databases, files := 0, 0
	for _, s := range l.here() {
		if len(s.Backup.Dumps) == 0 {
			continue
		}
		repo, snapshot, err := l.from(s, l.Repo)
		if err != nil {
			return seen{}, err
		}
		found.since(snapshot.Time)
		for _, d := range s.Backup.Dumps {
			at := path.Join(l.Dumps, s.Name, d.Name)
			cure := "homelab backup run fast, then look again: " + s.Name + "'s dump in snapshot " + snapshot.Short() + " cannot be trusted"
			if d.Kind != "postgres" {
				if _, size, err := dumped(ctx, repo, snapshot.ID, at); err != nil || size == 0 {
					return seen{}, fault(cure, "%s: the dump %s has %d bytes: %v", s.Name, d.Name, size, err)
				}
				files++
				continue
			}
			n, err := manifestHolds(ctx, repo, snapshot.ID, at)
			if err != nil {
				return seen{}, fault(cure, "%s: the dump %s: %v", s.Name, d.Name, err)
			}
			databases += n
		}
	}
	if databases+files == 0 {
		return seen{text: "no database runs on " + l.Host}, nil
	}
	found.text = fmt.Sprintf("%d databases and %d other dumps read whole; every file of a database has the hash that its manifest names", databases, files)
	return found, nil
}

// manifestHolds compares a dump's folder in a snapshot with its manifest; n is the number of databases.
func manifestHolds(ctx context.Context, repo restic.Repo, snapshot, folder string) (n int, err error) {
	read, write := io.Pipe()
	go func() { write.CloseWithError(repo.Dump(ctx, snapshot, folder, write)) }()
	defer read.CloseWithError(nil) // ends restic where the archive is not read to its end
	is := map[string]postgres.File{}
	var manifest postgres.Manifest
	there := false
	for archive := tar.NewReader(read); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		name := path.Base(h.Name)
		if name == postgres.ManifestName {
			if err := json.NewDecoder(io.LimitReader(archive, 64<<20)).Decode(&manifest); err != nil {
				return 0, fmt.Errorf("read the manifest: %w", err)
			}
			there = true
			continue
		}
		sum := sha256.New()
		size, err := io.Copy(sum, archive)
		if err != nil {
			return 0, err
		}
		is[name] = postgres.File{Name: name, Bytes: size, SHA256: hex.EncodeToString(sum.Sum(nil))}
	}
	if !there {
		return 0, errors.New("it has no manifest")
	}
	want := []postgres.File{manifest.Globals}
	for _, d := range manifest.Databases {
		want = append(want, d.File)
	}
	for _, f := range want {
		got, ok := is[path.Base(f.Name)]
		switch {
		case !ok:
			return 0, fmt.Errorf("%s is missing", f.Name)
		case got.Bytes != f.Bytes || got.SHA256 != f.SHA256:
			return 0, fmt.Errorf("%s is not what its manifest names: %d bytes, and %d are named", f.Name, got.Bytes, f.Bytes)
		}
	}
	return len(manifest.Databases), nil
}

// largest is the longest file that is fetched for a comparison, in bytes.
const largest = 256 << 20

// filesEqual fetches files picked at random and compares them with those that lie on the machine. What changed since the snapshot says
// nothing, and another one is picked.
func filesEqual(ctx context.Context, l *look) (seen, error) {
	type pick struct {
		repo     restic.Repo
		snapshot restic.Snapshot
		node     restic.Node
	}
	var all []pick
	var found seen
	for _, s := range l.here() {
		if len(s.Backup.Paths) == 0 {
			continue
		}
		repo, snapshot, err := l.from(s, l.Repo)
		if err != nil {
			return seen{}, err
		}
		found.since(snapshot.Time)
		for _, p := range s.Backup.Paths {
			nodes, err := repo.List(ctx, snapshot.ID, p.Path)
			if err != nil {
				return seen{}, fault("homelab backup check fast", "%s cannot be listed: %v", s.Name, err)
			}
			for _, n := range nodes {
				if n.Type == "file" && n.Size <= largest {
					all = append(all, pick{repo, snapshot, n})
				}
			}
		}
	}
	if len(all) == 0 {
		return seen{text: "no files of " + l.Host + " are backed up as they lie"}, nil
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	want := l.Files
	if want == 0 {
		want = 12
	}
	equal, since := 0, 0
	for _, p := range all {
		if equal == want || since > 20*want {
			break
		}
		here, changed, err := onDisk(p.node.Path, p.snapshot.Time)
		if err != nil {
			return seen{}, fault("look at the disk of "+l.Host, "a file cannot be read: %v", err)
		}
		if changed {
			since++
			continue
		}
		sum, _, err := dumped(ctx, p.repo, p.snapshot.ID, p.node.Path)
		if err != nil {
			return seen{}, fault("homelab backup check fast", "a file cannot be fetched: %v", err)
		}
		if sum != here {
			if _, changed, err := onDisk(p.node.Path, p.snapshot.Time); err == nil && changed {
				since++
				continue // while it was fetched
			}
			return seen{}, fault("homelab backup run fast, and look again; if it stays, the disk or the repository is damaged: docs/restore.md", "%s came back different, and did not change since snapshot %s", p.node.Path, p.snapshot.Short())
		}
		equal++
	}
	if equal == 0 {
		return seen{}, fault("homelab backup run fast, and look again at once", "each of %d files changed since the backup, so nothing could be compared", since)
	}
	found.text = fmt.Sprintf("%d of %d files fetched and equal to the byte; %d that changed since were passed over", equal, len(all), since)
	return found, nil
}

// onDisk hashes a file as it lies. changed says that it was written, or removed, since the snapshot began.
func onDisk(file string, since time.Time) (sum string, changed bool, err error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", true, nil
	}
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", false, err
	}
	if !st.Mode().IsRegular() || !st.ModTime().Before(since) {
		return "", true, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", false, err
	}
	return hex.EncodeToString(h.Sum(nil)), false, nil
}
