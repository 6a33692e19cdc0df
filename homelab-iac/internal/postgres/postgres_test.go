package postgres_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/postgres/postgrestest"
)

const fill = `
CREATE ROLE shop LOGIN PASSWORD 'secret';
ALTER DATABASE shop OWNER TO shop;
`

const tables = `
CREATE EXTENSION pg_trgm;
CREATE SCHEMA "odd schema";
CREATE TABLE public.orders (id bigserial PRIMARY KEY, what text, at timestamptz DEFAULT '2026-01-02 03:04:05+00', price double precision, raw bytea);
INSERT INTO public.orders (what, price, raw) SELECT E'line\nbreak ' || n, n / 3.0, decode(md5(n::text), 'hex') FROM generate_series(1, 500) n;
CREATE TABLE "odd schema"."odd table" (t text, homelab int);
INSERT INTO "odd schema"."odd table" VALUES (NULL, 1), ('\\.', 2), (repeat('long', 200000), 3);
CREATE TABLE parts (k int) PARTITION BY RANGE (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
INSERT INTO parts VALUES (1), (2);
CREATE TABLE empty ();
CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM public.orders;
SELECT lo_from_bytea(0, '\x010203');
`

func TestADumpComesBackExactly(t *testing.T) {
	t.Parallel()
	s := postgrestest.Start(t)
	postgrestest.SQL(t, s, "postgres", "CREATE DATABASE shop")
	postgrestest.SQL(t, s, "postgres", fill)
	postgrestest.SQL(t, s, "shop", tables)
	dir := filepath.Join(t.TempDir(), "pg")
	if err := os.MkdirAll(dir+".part", 0o700); err != nil { // a killed run left this
		t.Fatal(err)
	}
	m, err := s.Dump(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := postgres.Verify(dir); err != nil || len(again.Databases) != 1 || again.Server != m.Server {
		t.Fatalf("%+v %v", again, err)
	}
	db := m.Databases[0]
	rows := map[string]int64{}
	for _, table := range db.Tables {
		rows[table.Name] = table.Rows
	}
	if rows["public.orders"] != 500 || rows[`"odd schema"."odd table"`] != 3 || rows["public.parts_1"] != 2 || rows["public.sums"] != 1 || len(rows) != 5 {
		t.Errorf("rows %v", rows)
	}
	if st, err := os.Stat(filepath.Join(dir, "shop.dump")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}

	restore := func() postgres.Database {
		t.Helper()
		postgrestest.Command(t, s, s.LoadGlobals(), filepath.Join(dir, "globals.sql")) // the roles are there already
		postgrestest.Command(t, s, s.Drop("shop_restoring"), "")
		postgrestest.Command(t, s, s.Create(db, "shop_restoring"), "")
		postgrestest.Command(t, s, s.Load("shop_restoring"), filepath.Join(dir, "shop.dump"))
		postgrestest.Command(t, s, s.Analyze("shop_restoring"), "")
		got, err := s.Measure(t.Context(), "shop_restoring")
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if diff := postgres.Diff(db, restore()); len(diff) > 0 {
		t.Fatalf("restored with differences:\n%s", strings.Join(diff, "\n"))
	}
	postgrestest.SQL(t, s, "postgres", "SELECT 1") // nobody is connected to shop any more
	postgrestest.Command(t, s, s.Rename("shop", "shop_before"), "")
	postgrestest.Command(t, s, s.Rename("shop_restoring", "shop"), "")
	postgrestest.Command(t, s, s.Rename("not there", "anything"), "")
	for change, want := range map[string]string{
		"UPDATE public.orders SET what = 'x' WHERE id = 7":                      "public.orders: its 500 rows are others",
		"DELETE FROM parts WHERE k = 1":                                         "public.parts_1: had 2 rows, has 1",
		"DROP TABLE empty":                                                      "public.empty: is missing",
		"CREATE TABLE more ()":                                                  "public.more: was not there",
		"SELECT setval('public.orders_id_seq', 3)":                              "public.orders_id_seq: had reached 500, is at 3",
		"DROP EXTENSION pg_trgm":                                                "extensions",
		"ALTER DATABASE shop OWNER TO tester":                                   "owner",
		"SELECT lo_unlink(oid) FROM pg_largeobject_metadata":                    "large objects",
		`UPDATE "odd schema"."odd table" SET t = t || 'r' WHERE homelab = 3`:    `"odd schema"."odd table": its 3 rows are others`,
		`ALTER TABLE public.orders ALTER price TYPE numeric USING price + 1e-9`: "public.orders: its 500 rows are others",
	} {
		postgrestest.SQL(t, s, "shop", change)
		got, err := s.Measure(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		if diff := strings.Join(postgres.Diff(db, got), "\n"); !strings.Contains(diff, want) {
			t.Errorf("after %q the difference is %q, want %q", change, diff, want)
		}
	}
}

func TestADamagedDumpIsNoticed(t *testing.T) {
	t.Parallel()
	s := postgrestest.Start(t)
	postgrestest.SQL(t, s, "postgres", "CREATE DATABASE shop")
	postgrestest.SQL(t, s, "shop", "CREATE TABLE a AS SELECT generate_series(1, 1000) n")
	for name, damage := range map[string]func(dir string) error{
		"half":             func(dir string) error { return os.Truncate(filepath.Join(dir, "shop.dump"), 2000) },
		"empty":            func(dir string) error { return os.Truncate(filepath.Join(dir, "shop.dump"), 0) },
		"missing":          func(dir string) error { return os.Remove(filepath.Join(dir, "shop.dump")) },
		"without globals":  func(dir string) error { return os.Remove(filepath.Join(dir, "globals.sql")) },
		"without manifest": func(dir string) error { return os.Remove(filepath.Join(dir, postgres.ManifestName)) },
		"half a manifest":  func(dir string) error { return os.Truncate(filepath.Join(dir, postgres.ManifestName), 100) },
		"no databases": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, postgres.ManifestName), []byte("{}"), 0o600)
		},
	} {
		dir := filepath.Join(t.TempDir(), "pg")
		if _, err := s.Dump(t.Context(), dir, []string{"shop"}); err != nil {
			t.Fatal(err)
		}
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := postgres.Verify(dir); err == nil || !strings.Contains(err.Error(), "take another snapshot") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestADumpThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	s := postgrestest.Start(t)
	dir := filepath.Join(t.TempDir(), "pg")
	gone := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		for _, p := range []string{dir, dir + ".part"} {
			if _, err := os.Stat(p); err == nil {
				t.Errorf("%s: left %s", what, p)
			}
		}
	}
	_, err := s.Dump(t.Context(), dir, []string{"nowhere"})
	gone("no such database", err, `"nowhere" does not exist`)
	other := s
	other.Major = s.Major + 1
	_, err = other.Dump(t.Context(), dir, nil)
	gone("another major version", err, "its own major version")
	other = s
	other.Env = []string{"PGHOST=" + t.TempDir()}
	_, err = other.Dump(t.Context(), dir, nil)
	gone("no server", err, "run psql")
	postgrestest.SQL(t, s, "postgres", "CREATE DATABASE shop")
	postgrestest.SQL(t, s, "shop", "CREATE TABLE a AS SELECT generate_series(1, 1000) n")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = s.Dump(ctx, dir, nil)
	gone("no time", err, "")
}
