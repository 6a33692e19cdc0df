//go:build prove

package main

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// TestForgettingInPostgreSQLLeavesNoRow forgets a fact where PostgreSQL has the tables, and this machine an index and vectors of its own: no
// table and no file holds it then.
func TestForgettingInPostgreSQLLeavesNoRow(t *testing.T) {
	home := listen(t, "ollama", parsed(t, `
models: [m, reader]
reply:
  - {model: reader, match: "alpacas", text: '{"facts":[{"fact":"The user keeps eleven alpacas","quote":"I keep eleven alpacas","about":"user","lasting":true,"corrects":false,"confidence":1}]}'}
  - {text: Fine.}
`))
	address := postgrestest.Start(t).New()
	t.Setenv("MEMORY_DATABASE", address)
	s, data := rememberer(t, fmt.Sprintf(`
database: env:MEMORY_DATABASE
vault: {path: %q}
providers: {home: {kind: ollama, url: %s}}
routes: {default: {provider: home, model: m}, models: {reader: {provider: home}}}
library: {embed: home/m}
memory: {model: reader}
`, notesIn(t, map[string]string{"a.md": vaultNotes, "b.md": vaultNotes}), home.url))
	s.asksIn(t, 0, url.Values{"text": {"Hello, I keep eleven alpacas."}, "key": {"a"}})
	s.do(t, http.MethodPost, "/api/memory/learn", `{}`)
	d, err := db.OpenPostgresRead(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rows := func(what string) (n int) {
		t.Helper()
		err := d.Read().QueryRow(`SELECT coalesce(sum((xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I.%I x WHERE x::text LIKE %L', table_schema, table_name, '%' || $1::text || '%'),
			false, true, '')))[1]::text::int), 0) FROM information_schema.tables WHERE table_schema IN ('public', 'dbos') AND table_type = 'BASE TABLE'`, what).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const fact = "The user keeps eleven alpacas"
	if n, _ := held(t, data, fact); n == 0 || rows(fact) < 2 {
		t.Fatalf("%d in files, %d rows before, so this test proves nothing", n, rows(fact))
	}
	s.do(t, http.MethodDelete, "/api/memory/facts/1", "")
	if n, where := held(t, data, fact); n > 0 {
		t.Errorf("it is left %d times, in %v", n, where)
	}
	if n := rows(fact); n > 0 {
		t.Errorf("%d rows hold it", n)
	}
	if n := rows("I keep eleven alpacas"); n != 2 { // the message, and the conversation's title
		t.Errorf("%d rows hold the quote", n)
	}
}
