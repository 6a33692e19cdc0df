// Package house holds the rules of the repository as tests: which floor may import which, who may write SQL and serve
// HTTP, who owns which table, and what nothing may be called.
package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "home.arpa/lab"

// floors lists the packages of llm-runner/internal, and behind "homelab-iac/" those of homelab-iac/internal, by floor.
// Imports go down only, never sideways; a folder below a listed one stands on its floor and may be imported by it and by
// its siblings below the same one.
var floors = map[string]int{
	"llm": 0, "sse": 0,
	"upstream": 1, "db": 1, "engine": 1, "guard": 1, "trace": 1, "fake/script": 1,
	"extract":         1, // text out of documents: bytes in, text out
	"vector":          1, // files and arithmetic, and the words that stores of vectors share
	"provider/openai": 2, "provider/gemini": 2, "provider/anthropic": 2, "provider/ollama": 2, "provider/scripted": 2,
	"quota": 2, "usage": 2, "alert": 2, // acts raise alerts in their own transactions
	"toolbox": 2,                             // one tool knows nothing of another skill: main hands it functions
	"embed":   2, "qdrant": 2, "pgvector": 2, // one model's vectors with its cache, and stores for them: the library is handed both
	"route": 3, "library": 3, // the library stands on embed and vector
	"agent": 4, "chat": 4, "jobs": 4, "graph": 4, "progress": 4, "memory": 4, "eval": 4, // eval measures the library, so it stands above it
	"web": 5, "gateway": 5, "fake": 5,

	"homelab-iac/catalog": 0, "homelab-iac/site": 0, "homelab-iac/plan": 0, "homelab-iac/seal": 0, // the words: services and tiers; this machine; a Terraform plan; a sealed file
	"homelab-iac/restic": 1, "homelab-iac/postgres": 1, "homelab-iac/tree": 1, "homelab-iac/incident": 1, "homelab-iac/registry": 1, "homelab-iac/pass": 1, "homelab-iac/ansible": 1, "homelab-iac/s3": 1, "homelab-iac/infisical": 1,
	"homelab-iac/gitlab": 1, "homelab-iac/image": 1, // tools: one program or one thing each
	"homelab-iac/backup": 2, "homelab-iac/watch": 2, "homelab-iac/restore": 2, "homelab-iac/versions": 2, "homelab-iac/secrets": 2, "homelab-iac/pipeline": 2, "homelab-iac/deploy": 2, // acts
	"homelab-iac/precheck": 3, // signs for a wipe, by what all others say
	"homelab-iac/drill":    3, // the proof runs a restore and compares
	"homelab-iac/fake":     3, // serves HTTP; nothing of ours is behind it
}

// words may import the standard library only.
var words = []string{"llm", "sse"}

// badNames say nothing about what is inside.
var badNames = []string{"util", "utils", "common", "helper", "helpers", "base", "misc", "manager", "shared", "lib"}

type goFile struct {
	path    string // slash-separated, from the repository's root
	imports []string
	ast     *ast.File
	test    bool
}

func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return filepath.SkipDir
			}
			if p != "." {
				if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
					return filepath.SkipDir // another module
				}
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		g := goFile{path: filepath.ToSlash(p), ast: f, test: strings.HasSuffix(p, "_test.go")}
		for _, i := range f.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			g.imports = append(g.imports, name)
		}
		files = append(files, g)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// room returns the path of a package as floors writes it, and the listed package that it belongs to.
func room(dir string) (rest, listed string) {
	rest, ok := strings.CutPrefix(dir, "llm-runner/internal/")
	if !ok {
		if rest, ok = strings.CutPrefix(dir, "homelab-iac/internal/"); !ok {
			return "", ""
		}
		rest = "homelab-iac/" + rest
	}
	for at := rest; at != "."; at = path.Dir(at) {
		if _, ok := floors[at]; ok {
			return rest, at
		}
	}
	return rest, ""
}

// isSQL says that a file of a package other than db may hold SQL.
func isSQL(name string) bool { return name == "sql.go" || strings.HasSuffix(name, "_sql.go") }

func TestImportsGoDownOnly(t *testing.T) {
	for _, f := range goFiles(t) {
		from, fromListed := room(path.Dir(f.path))
		if from == "" || f.test || strings.HasPrefix(from, "provider/providertest") {
			continue
		}
		if fromListed == "" {
			t.Errorf("%s: the package %s stands on no floor: add it to floors", f.path, from)
			continue
		}
		for _, name := range f.imports {
			inside, ours := strings.CutPrefix(name, module+"/")
			if slices.Contains(words, fromListed) && strings.Contains(strings.SplitN(name, "/", 2)[0], ".") {
				t.Errorf("%s imports %s: the words import the standard library only", f.path, name)
			}
			to, toListed := room(inside)
			if !ours || to == "" || toListed == fromListed {
				continue
			}
			if floors[toListed] < floors[fromListed] && toListed != "" {
				continue
			}
			t.Errorf("%s imports %s: from floor %d (%s) to floor %d (%s)", f.path, name, floors[fromListed], fromListed, floors[toListed], toListed)
		}
	}
}

func TestTheRoomsDoNotKnowEachOther(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, name := range f.imports {
			if strings.HasPrefix(f.path, "llm-runner/") && strings.HasPrefix(name, module+"/homelab-iac") ||
				strings.HasPrefix(f.path, "homelab-iac/") && strings.HasPrefix(name, module+"/llm-runner") ||
				strings.HasPrefix(f.path, "internal/") && (strings.HasPrefix(name, module+"/llm-runner") || strings.HasPrefix(name, module+"/homelab-iac")) {
				t.Errorf("%s imports %s", f.path, name)
			}
		}
	}
}

var sqlWord = regexp.MustCompile(`(?i)\b(SELECT .+ FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE (TABLE|INDEX|VIRTUAL)|PRAGMA )`)

func TestSQLStandsInItsPlace(t *testing.T) {
	for _, f := range goFiles(t) {
		dir, name := path.Split(f.path)
		if f.test || isSQL(name) || strings.HasSuffix(dir, "/internal/db/") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && sqlWord.MatchString(lit.Value) {
				t.Errorf("%s: SQL outside db and files named sql.go or ..._sql.go: %.60s", f.path, lit.Value)
			}
			return true
		})
	}
}

// servers are the packages that may serve HTTP.
var servers = []string{"web", "gateway", "fake", "guard", "homelab-iac/fake"}

func TestOnlyTheDoorsServeHTTP(t *testing.T) {
	serving := regexp.MustCompile(`^(HandleFunc|Handle|ListenAndServe|NewServeMux|ServeHTTP)$`)
	for _, f := range goFiles(t) {
		_, listed := room(path.Dir(f.path))
		if f.test || listed == "" || slices.Contains(servers, listed) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && serving.MatchString(id.Name) {
				t.Errorf("%s: %s: only %v serve HTTP", f.path, id.Name, servers)
			}
			return true
		})
	}
}

func TestEveryTableHasOneOwner(t *testing.T) {
	migrations, err := filepath.Glob("llm-runner/internal/db/migrations/*.sql")
	if err != nil || len(migrations) == 0 {
		t.Fatal("no migrations found", err)
	}
	twins, err := filepath.Glob("llm-runner/internal/db/migrations/postgres/*.sql")
	if err != nil || len(twins) == 0 {
		t.Fatal("no migrations for PostgreSQL found", err)
	}
	migrations = append(migrations, twins...)
	owner := map[string]string{}
	table := regexp.MustCompile(`(?i)CREATE (?:VIRTUAL )?TABLE (?:IF NOT EXISTS )?(\w+)`)
	drop, dropped := regexp.MustCompile(`(?i)DROP TABLE (?:IF EXISTS )?(\w+)`), map[string]bool{}
	for _, m := range migrations {
		text, err := os.ReadFile(m)
		if err != nil {
			t.Fatal(err)
		}
		who, ok := strings.CutPrefix(strings.SplitN(string(text), "\n", 2)[0], "-- owner: ")
		if _, known := floors[who]; !ok || !known {
			t.Errorf("%s: the first line must be \"-- owner: PACKAGE\"", m)
		}
		for _, found := range table.FindAllStringSubmatch(string(text), -1) {
			if other, taken := owner[found[1]]; taken && other != who { // an owner may make its table anew
				t.Errorf("%s: table %s belongs to %s already", m, found[1], other)
			}
			owner[found[1]] = who
			delete(dropped, found[1])
		}
		for _, found := range drop.FindAllStringSubmatch(string(text), -1) {
			dropped[found[1]] = true
		}
	}
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, who := range owner {
		one := regexp.MustCompile("(?m)^\\|[^|]*`(" + name + "|" + strings.SplitN(name, "_", 2)[0] + `_\*)` + "`[^|]*\\| " + who + `\b`)
		if !one.Match(page) && !dropped[name] {
			t.Errorf("ARCHITECTURE.md does not say that the table %s belongs to %s", name, who)
		}
	}
	for _, f := range goFiles(t) {
		_, listed := room(path.Dir(f.path))
		if f.test || !isSQL(path.Base(f.path)) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			for name, who := range owner {
				if who != listed && regexp.MustCompile(`(?i)\b(FROM|JOIN|INTO|UPDATE)\s+`+name+`\b`).MatchString(lit.Value) {
					t.Errorf("%s uses the table %s, which belongs to %s", f.path, name, who)
				}
			}
			return true
		})
	}
}

func TestNamesSayWhatIsInside(t *testing.T) {
	for _, f := range goFiles(t) {
		if slices.Contains(badNames, f.ast.Name.Name) || slices.Contains(badNames, strings.TrimSuffix(path.Base(f.path), ".go")) {
			t.Errorf("%s: a name that says nothing", f.path)
		}
	}
}

// longest is where a file should be looked at for a second noun.
const longest = 600

func TestFilesAreShortEnoughToRead(t *testing.T) {
	for _, f := range goFiles(t) {
		text, err := os.ReadFile(f.path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > longest && !f.test {
			t.Errorf("%s has %d lines: look for the second noun", f.path, n)
		}
	}
}
