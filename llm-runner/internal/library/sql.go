package library

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// weights of a match in title, aliases, heading, path, tags and body, for bm25: a heading outweighs a few mentions in the
// text. The handbook's questions hold them in place: at half of these two of the 28 find the wrong page first, at twice
// these none does.
const weights = "4.0, 4.0, 3.0, 2.0, 2.0, 1.0"

// stamp makes sure that the index is of source: another tree's index is emptied.
func stamp(ctx context.Context, d *db.DB, source string) error {
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		var have string
		err := tx.QueryRowContext(ctx, `SELECT source FROM library_stamp`).Scan(&have)
		if err == nil && have == source {
			return nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		for _, q := range []string{
			`INSERT INTO library_fts (library_fts) VALUES ('delete-all')`,
			`DELETE FROM library_passages`, `DELETE FROM library_names`, `DELETE FROM library_notes`,
		} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO library_stamp (id, source) VALUES (1, ?)
			ON CONFLICT (id) DO UPDATE SET source = excluded.source`, source)
		return err
	})
	if err != nil {
		return fmt.Errorf("open library: %w", err)
	}
	return nil
}

// A known note is what the index holds of a file.
type known struct {
	id       int64
	size     int64
	mtime    int64
	hash     string
	skipped  string
	passages int
}

func loadKnown(ctx context.Context, d *db.DB) (map[string]known, error) {
	rows, err := d.Read().QueryContext(ctx, `SELECT n.path, n.id, n.size, n.mtime, n.hash, n.skipped, count(p.id)
		FROM library_notes n LEFT JOIN library_passages p ON p.note_id = n.id GROUP BY n.id`)
	if err != nil {
		return nil, fmt.Errorf("read library: %w", err)
	}
	defer rows.Close()
	all := map[string]known{}
	for rows.Next() {
		var path string
		var k known
		if err := rows.Scan(&path, &k.id, &k.size, &k.mtime, &k.hash, &k.skipped, &k.passages); err != nil {
			return nil, fmt.Errorf("read library: %w", err)
		}
		all[path] = k
	}
	return all, rows.Err()
}

// A change is what one note becomes.
type change struct {
	entry
	old  int64 // the row that it replaces; 0 none
	gone bool  // the file is no more
	same bool  // only the time stamp is new
	hash []byte
	text []byte
	doc  Doc
	id   int64 // set by apply
}

// apply puts changes into the index, each note wholly or not at all.
func apply(ctx context.Context, d *db.DB, changes []*change) error {
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		w, err := prepare(ctx, tx)
		if err != nil {
			return err
		}
		defer w.close()
		for _, c := range changes {
			if err := w.apply(ctx, c); err != nil {
				return fmt.Errorf("%s: %w", c.path, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write library: %w", err)
	}
	return nil
}

// A writer holds the statements of one transaction.
type writer struct {
	touch, unindex, remove, note, name, passage, index *sql.Stmt
}

func prepare(ctx context.Context, tx *sql.Tx) (*writer, error) {
	w := &writer{}
	for _, p := range []struct {
		stmt **sql.Stmt
		sql  string
	}{
		{&w.touch, `UPDATE library_notes SET mtime = ? WHERE id = ?`},
		{&w.unindex, `DELETE FROM library_fts WHERE rowid IN (SELECT id FROM library_passages WHERE note_id = ?)`},
		{&w.remove, `DELETE FROM library_notes WHERE id = ?`},
		{&w.note, `INSERT INTO library_notes (path, size, mtime, hash, title, skipped) VALUES (?,?,?,?,?,?)`},
		{&w.name, `INSERT INTO library_names (name, note_id) VALUES (?,?) ON CONFLICT DO NOTHING`},
		{&w.passage, `INSERT INTO library_passages (note_id, heading, front, start_byte, end_byte, start_line, end_line, body)
			VALUES (?,?,?,?,?,?,?,?)`},
		{&w.index, `INSERT INTO library_fts (rowid, title, aliases, heading, path, tags, body) VALUES (?,?,?,?,?,?,?)`},
	} {
		stmt, err := tx.PrepareContext(ctx, p.sql) //nolint:sqlclosecheck // close does
		if err != nil {
			w.close()
			return nil, err
		}
		*p.stmt = stmt
	}
	return w, nil
}

func (w *writer) close() {
	for _, s := range []*sql.Stmt{w.touch, w.unindex, w.remove, w.note, w.name, w.passage, w.index} {
		if s != nil {
			s.Close()
		}
	}
}

func (w *writer) apply(ctx context.Context, c *change) error {
	if c.same {
		c.id = c.old
		_, err := w.touch.ExecContext(ctx, c.mtime, c.old)
		return err
	}
	if c.old != 0 {
		if _, err := w.unindex.ExecContext(ctx, c.old); err != nil {
			return err
		}
		if _, err := w.remove.ExecContext(ctx, c.old); err != nil { // its names and passages go with it
			return err
		}
	}
	if c.gone {
		return nil
	}
	if c.hash == nil {
		c.hash = []byte{}
	}
	r, err := w.note.ExecContext(ctx, c.path, c.size, c.mtime, c.hash, c.doc.Title, c.reason)
	if err != nil {
		return err
	}
	if c.id, err = r.LastInsertId(); err != nil || c.reason != "" {
		return err
	}
	for _, name := range names(c.path, c.doc) {
		if _, err := w.name.ExecContext(ctx, name, c.id); err != nil {
			return err
		}
	}
	aliases, tags := strings.Join(c.doc.Aliases, "\n"), strings.Join(c.doc.Tags, "\n")
	for _, p := range c.doc.Passages {
		body, trail := string(c.text[p.Start:p.End]), strings.Join(p.Heading, "\n")
		r, err := w.passage.ExecContext(ctx, c.id, trail, p.Front, p.Start, p.End, p.Line, p.EndLine, body)
		if err != nil {
			return err
		}
		id, err := r.LastInsertId()
		if err != nil {
			return err
		}
		if _, err := w.index.ExecContext(ctx, id, c.doc.Title, aliases, trail, withoutExt(c.path), tags, body); err != nil {
			return err
		}
	}
	return nil
}

// match returns the best n passages for an FTS5 query, best first, with their bm25 score turned positive.
func match(ctx context.Context, d *db.DB, query string, n int) ([]scored, error) {
	rows, err := d.Read().QueryContext(ctx, `SELECT rowid, -bm25(library_fts, `+weights+`) AS score FROM library_fts
		WHERE library_fts MATCH ? ORDER BY score DESC, rowid LIMIT ?`, query, n)
	if err != nil {
		return nil, fmt.Errorf("search library: %w", err)
	}
	defer rows.Close()
	var all []scored
	for rows.Next() {
		var s scored
		if err := rows.Scan(&s.id, &s.score); err != nil {
			return nil, fmt.Errorf("search library: %w", err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("search library: %w", err)
	}
	return all, nil
}

type scored struct {
	id    int64
	score float64
}

// named returns the passages of the notes that are called by one of names, in order, at most n.
func named(ctx context.Context, d *db.DB, names []string, n int) ([]int64, error) {
	return ids(ctx, d, `SELECT DISTINCT p.id FROM library_names x JOIN library_passages p ON p.note_id = x.note_id
		WHERE x.name IN (`+marks(len(names))+`) ORDER BY p.note_id, p.front, p.start_byte LIMIT ?`, append(args(names), n)...)
}

func ids(ctx context.Context, d *db.DB, query string, a ...any) ([]int64, error) {
	rows, err := d.Read().QueryContext(ctx, query, a...)
	if err != nil {
		return nil, fmt.Errorf("search library: %w", err)
	}
	defer rows.Close()
	var all []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("search library: %w", err)
		}
		all = append(all, id)
	}
	return all, rows.Err()
}

// frequencies returns in how many passages each stem occurs; those in none are left out.
func frequencies(ctx context.Context, d *db.DB, stems []string) (map[string]int, error) {
	rows, err := d.Read().QueryContext(ctx, `SELECT term, doc FROM library_vocab WHERE term IN (`+marks(len(stems))+`)`, args(stems)...)
	if err != nil {
		return nil, fmt.Errorf("search library: %w", err)
	}
	defer rows.Close()
	all := map[string]int{}
	for rows.Next() {
		var term string
		var n int
		if err := rows.Scan(&term, &n); err != nil {
			return nil, fmt.Errorf("search library: %w", err)
		}
		all[term] = n
	}
	return all, rows.Err()
}

// A found passage is a row of the index.
type found struct {
	llm.Citation
	title   string
	aliases string
	front   bool
}

// passages returns the passages with these ids; those that have been removed meanwhile are left out.
func passages(ctx context.Context, d *db.DB, ids []int64) (map[int64]found, error) {
	rows, err := d.Read().QueryContext(ctx, `SELECT p.id, n.path, n.title, p.heading, p.front, p.start_byte, p.end_byte, p.start_line,
		p.end_line, p.body, (SELECT coalesce(group_concat(name, ' '), '') FROM library_names x WHERE x.note_id = n.id)
		FROM library_passages p JOIN library_notes n ON n.id = p.note_id WHERE p.id IN (`+marks(len(ids))+`)`, args(ids)...)
	if err != nil {
		return nil, fmt.Errorf("search library: %w", err)
	}
	defer rows.Close()
	all := map[int64]found{}
	for rows.Next() {
		var id int64
		var f found
		var trail string
		if err := rows.Scan(&id, &f.Path, &f.title, &trail, &f.front, &f.Start, &f.End, &f.Line, &f.EndLine, &f.Quote, &f.aliases); err != nil {
			return nil, fmt.Errorf("search library: %w", err)
		}
		if trail != "" {
			f.Heading = strings.Split(trail, "\n")
		}
		all[id] = f
	}
	return all, rows.Err()
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

func args[T any](in []T) []any {
	out := make([]any, len(in))
	for i, x := range in {
		out[i] = x
	}
	return out
}
