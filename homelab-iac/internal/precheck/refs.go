package precheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"home.arpa/lab/homelab-iac/internal/catalog"
)

// refsEqual compares what every repository of Gitea points to with what the backup has: a push that came after the backup would be lost.
func refsEqual(ctx context.Context, l *look) (seen, error) {
	i := slices.IndexFunc(l.here(), func(s catalog.Service) bool { return s.HasTag("gitea") })
	if i < 0 {
		return seen{text: "no Gitea runs on " + l.Host}, nil
	}
	gitea := l.here()[i]
	repo, snapshot, err := l.from(gitea, l.Repo)
	if err != nil {
		return seen{}, err
	}
	staging, err := os.MkdirTemp("", "homelab-precheck-")
	if err != nil {
		return seen{}, err
	}
	defer os.RemoveAll(staging)
	repositories, refs := 0, 0
	for _, p := range gitea.Backup.Paths {
		args := []string{"restore", "--no-lock", "--json", snapshot.ID, "--target", staging}
		for _, part := range []string{"HEAD", "packed-refs", "refs"} {
			args = append(args, "--include", p.Path+"/**/*.git/"+part)
		}
		if _, err := repo.Run(ctx, args, nil); err != nil {
			return seen{}, fault("homelab backup check fast", "the refs cannot be fetched: %v", err)
		}
		was, err := gitRefs(filepath.Join(staging, p.Path))
		if err != nil {
			return seen{}, err
		}
		is, err := gitRefs(p.Path)
		if err != nil {
			return seen{}, fault("look at the disk of "+l.Host, "Gitea's repositories cannot be read: %v", err)
		}
		if d := refsDiffer(was, is); d != "" {
			return seen{at: snapshot.Time}, fault("homelab backup run fast, with nobody pushing meanwhile", "%s", d)
		}
		repositories += len(is)
		for _, r := range is {
			refs += len(r)
		}
	}
	if repositories == 0 {
		return seen{}, fault("look whether the disk is mounted", "Gitea has no repository, here and in the backup")
	}
	return seen{fmt.Sprintf("%d repositories, %d refs: all as in snapshot %s", repositories, refs, snapshot.Short()), snapshot.Time}, nil
}

func refsDiffer(was, is map[string]map[string]string) string {
	for _, name := range slices.Sorted(maps.Keys(is)) {
		old, ok := was[name]
		if !ok {
			return fmt.Sprintf("the repository %s is not in the backup", name)
		}
		for _, ref := range slices.Sorted(maps.Keys(is[name])) {
			if old[ref] != is[name][ref] {
				return fmt.Sprintf("%s of %s is newer than the backup", ref, name)
			}
		}
		for _, ref := range slices.Sorted(maps.Keys(old)) {
			if _, ok := is[name][ref]; !ok {
				return fmt.Sprintf("%s of %s was removed since the backup", ref, name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, ok := is[name]; !ok {
			return fmt.Sprintf("the repository %s is in the backup and not here", name)
		}
	}
	return ""
}

// gitRefs reads what the bare repositories (NAME.git) below a folder point to: HEAD, loose refs and packed ones, of which a loose one
// counts (git-pack-refs(1)).
func gitRefs(root string) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile, or never there
		}
		if err != nil {
			return err
		}
		if !d.IsDir() || !strings.HasSuffix(p, ".git") {
			return nil
		}
		head, err := os.ReadFile(filepath.Join(p, "HEAD"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a folder that is only called so
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		refs := map[string]string{"HEAD": strings.TrimSpace(string(head))}
		if err := oneRepository(p, refs); err != nil {
			return err
		}
		all[rel] = refs
		return fs.SkipDir
	})
	return all, err
}

func oneRepository(dir string, refs map[string]string) error {
	packed, err := os.ReadFile(filepath.Join(dir, "packed-refs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(packed)) {
		hash, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "^") {
			refs[name] = hash
		}
	}
	return filepath.WalkDir(filepath.Join(dir, "refs"), func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err == nil {
			refs[filepath.ToSlash(name)] = strings.TrimSpace(string(text))
		}
		return err
	})
}
