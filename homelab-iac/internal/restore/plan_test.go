package restore

import (
	"flag"
	"os"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/services"
)

var update = flag.Bool("update", false, "write docs/restore.md anew")

func ours(t *testing.T) []catalog.Service {
	t.Helper()
	all, err := catalog.Load(services.FS)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTheGuideIsUpToDate(t *testing.T) {
	const file = "../../../docs/restore.md"
	want := Guide(ours(t))
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != want {
		t.Errorf("docs/restore.md is stale: run go test ./homelab-iac/internal/restore -update (%v)", err)
	}
}

func TestNothingInUseIsTouchedBeforeEverythingIsFetchedAndVerified(t *testing.T) {
	order := map[string]int{Fetch: 0, Verify: 1, Database: 2, Stop: 3, Swap: 4, Compare: 5, Start: 6, Prove: 7, Clean: 8}
	for _, s := range ours(t) {
		if s.Nothing != "" {
			continue
		}
		p := For(s, Source{Tier: "fast"}, Site{Dumps: "/dumps", Compose: []string{"dc"}, Restic: "restic", Homelab: []string{"homelab"}, Stamp: "now", Measure: "/measured"})
		last, asked := 0, false
		for _, step := range p.Steps {
			if at, ok := order[step.Phase]; !ok || at < last {
				t.Errorf("%s: %q comes after a later phase", s.Name, step.What)
			} else {
				last = at
			}
			asked = asked || step.Ask
			if (step.Phase == Swap || step.Phase == Stop) && !asked {
				t.Errorf("%s: %q comes before anybody was asked", s.Name, step.What)
			}
			if step.Limit == 0 || step.What == "" || len(step.Argv) == 0 {
				t.Errorf("%s: %+v", s.Name, step)
			}
		}
		if order[p.Steps[len(p.Steps)-1].Phase] < order[Prove] {
			t.Errorf("%s: nothing is proved in the end", s.Name)
		}
	}
}

// TestFactsAreComparedAndDrillsAreForDrillsOnly: what changes data has no place in a restore.
func TestFactsAreComparedAndDrillsAreForDrillsOnly(t *testing.T) {
	for _, s := range ours(t) {
		if s.Name != "gitea" {
			continue
		}
		at := Site{Dumps: "/dumps", Compose: []string{"dc", "{service}"}, Restic: "restic", Homelab: []string{"homelab"}, Stamp: "now"}
		has := func(p Plan, words string) bool {
			for _, step := range p.Steps {
				if strings.Contains(step.Line(), words) {
					return true
				}
			}
			return false
		}
		whole, databases := For(s, Source{Tier: "fast"}, at), For(s, Source{Tier: "fast", DatabasesOnly: true}, at)
		if !has(whole, "| diff /dumps/gitea/refs.txt -") || has(databases, "refs.txt") {
			t.Error("the refs are compared with what they were, where the files came back")
		}
		if has(whole, "git push") || has(Proof(s, at, false), "git push") || !has(Proof(s, at, true), "git push") {
			t.Error("a push is for drills only")
		}
		if !has(Proof(s, at, false), "fsck") {
			t.Error("what must hold is asked again")
		}
		if has(whole, "homelab measure") {
			t.Error("a restore that is no drill measures nothing")
		}
	}
}

func TestTagsMeanServicesInTheOrderOfRestores(t *testing.T) {
	all := ours(t)
	for tags, want := range map[string]string{
		"vault": "vault", "gitea": "gitea", "photos": "photos", "photos vault": "vault photos", "dbs": "infisical gitea langfuse",
		"secrets": "infisical", "dbs gitea": "infisical gitea langfuse",
		"all": "terraform-state vault infisical gitea qdrant llm-runner uptime-kuma photos plex langfuse",
	} {
		got, err := Choose(all, strings.Fields(tags))
		var names []string
		for _, s := range got {
			names = append(names, s.Name)
		}
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("%s: %v %v", tags, names, err)
		}
	}
	if _, err := Choose(all, []string{"vault", "vualt"}); err == nil || !strings.Contains(err.Error(), `"vualt"`) {
		t.Error(err)
	}
	if _, err := Choose(all, []string{"nginx"}); err == nil {
		t.Error("nginx has nothing to restore")
	}
	for _, s := range all {
		if s.Name == "gitea" && (!OnlyDatabases(s, []string{"dbs"}) || OnlyDatabases(s, []string{"dbs", "gitea"})) {
			t.Error("dbs means the databases and nothing else, gitea all of it")
		}
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"plain/x-1": "plain/x-1", "two words": "'two words'", "it's": `'it'\''s'`, "": "''", "$SNAPSHOT": `"$SNAPSHOT"`, "$SNAPSHOT:/a": `"$SNAPSHOT:/a"`,
		"$(rm)": "'$(rm)'", "a b$STAMP": `'a b'"$STAMP"''`, "a;b": "'a;b'", "-n": "-n", "*": "'*'",
	} {
		if got := Quote(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
	if got := (Step{Argv: []string{"cat", "a b"}, Stdin: "/x y"}).Line(); got != "cat 'a b' < '/x y'" {
		t.Error(got)
	}
}

func TestOneFileReplacesNothing(t *testing.T) {
	s, ok := Owning(ours(t), "/srv/vault/notes/a b.md")
	if !ok || s.Name != "vault" {
		t.Fatal(s.Name)
	}
	p := File(s, Source{Tier: "fast"}, Site{Restic: "restic", Stamp: "now"}, "/srv/vault/notes/a b.md")
	for _, step := range p.Steps {
		if step.Ask || strings.Contains(step.Line(), "mv") && !strings.Contains(step.Line(), "mv -n -T '/srv/vault/notes/.homelab-restore-a b.md/a b.md' '/srv/vault/notes/a b.md.restored-now'") {
			t.Errorf("%s", step.Line())
		}
	}
	if _, ok := Owning(ours(t), "/etc/passwd"); ok {
		t.Error("nobody backs up /etc/passwd")
	}
	if _, ok := Owning(ours(t), "/srv/vault/notes2"); ok {
		t.Error("nobody backs up /srv/vault/notes2")
	}
}
