package pgvector

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/vector"
)

// Codes of PostgreSQL's errors (postgresql.org/docs/current/errcodes-appendix.html).
const (
	undefinedTable        = "42P01"
	insufficientPrivilege = "42501"
)

func is(err error, code string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == code
}

// enable makes sure that the database has the extension, and creates it where this user may.
func enable(ctx context.Context, d *db.DB) error {
	var visible, created, available bool
	var major int
	err := d.Read().QueryRowContext(ctx, `SELECT to_regtype('vector') IS NOT NULL,
		EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'vector'),
		EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'vector'),
		current_setting('server_version_num')::bigint / 10000`).Scan(&visible, &created, &available, &major)
	switch {
	case err != nil:
		return err
	case visible:
		return nil
	case created:
		return errors.New("the extension vector is in a schema that the search_path of this user lacks; " +
			"run ALTER EXTENSION vector SET SCHEMA public in the database")
	case !available:
		return fmt.Errorf("the server lacks pgvector; install it there (apt-get install postgresql-%d-pgvector, in Debian from 13 on and in PostgreSQL's own packages) and run "+
			"CREATE EXTENSION vector in the database as its superuser, or write library.store: embedded", major)
	}
	err = d.Tx(ctx, func(tx *sql.Tx) error {
		if err := d.LockName(ctx, tx, "pgvector extension"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `CREATE EXTENSION IF NOT EXISTS vector`)
		return err
	})
	if is(err, insufficientPrivilege) {
		return fmt.Errorf("the extension is not in the database, and this user may not create it; run CREATE EXTENSION vector there as the superuser: %w", err)
	}
	return err
}

// serving returns the collection that serves; 0: none does.
func serving(ctx context.Context, d *db.DB, place, name string) (id int64, s vector.Stamp, err error) {
	err = d.Read().QueryRowContext(ctx, `SELECT id, model, dimensions, prefix FROM pgvector_collections WHERE place = ? AND name = ? AND serving`,
		place, name).Scan(&id, &s.Model, &s.Dimensions, &s.Prefix)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, s, nil
	}
	return id, s, err
}

// find returns the collection of a stamp; 0: there is none.
func find(ctx context.Context, q db.Querier, place, name string, s vector.Stamp) (id int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT id FROM pgvector_collections WHERE place = ? AND name = ? AND model = ? AND dimensions = ? AND prefix = ?`,
		place, name, s.Model, s.Dimensions, s.Prefix).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// there is vector.ErrClosed when the collection was switched away from.
func there(ctx context.Context, q db.Querier, id int64) error {
	var have bool
	err := q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pgvector_collections WHERE id = ?)`, id).Scan(&have)
	if err == nil && !have {
		err = vector.ErrClosed
	}
	return err
}

// table is where the points of a collection are.
func table(id int64) string { return fmt.Sprintf("pgvector_points_%d", id) }

// inRow is up to how many dimensions a vector fits into a page of 8 kB with the rest of its row. There it is kept in the row:
// beside it, as PostgreSQL does from 2 kB on, a search fetches every vector by an index.
const inRow = 2000

// create makes a collection with its table.
func create(ctx context.Context, tx *sql.Tx, place, name string, s vector.Stamp) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO pgvector_collections (place, name, model, dimensions, prefix) VALUES (?, ?, ?, ?, ?) RETURNING id`,
		place, name, s.Model, s.Dimensions, s.Prefix).Scan(&id)
	if err != nil {
		return 0, err
	}
	all := []string{
		fmt.Sprintf(`CREATE TABLE %s (id BIGINT PRIMARY KEY, document BIGINT NOT NULL, vector vector(%d) NOT NULL)`, table(id), s.Dimensions),
		fmt.Sprintf(`CREATE INDEX ON %s (document)`, table(id)),
	}
	if s.Dimensions <= inRow {
		all = append(all, fmt.Sprintf(`ALTER TABLE %s ALTER COLUMN vector SET STORAGE PLAIN`, table(id)))
	}
	for _, statement := range all {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return 0, err
		}
	}
	return id, nil
}

// serve has one collection of name serve, and removes the others.
func serve(ctx context.Context, tx *sql.Tx, place, name string, id int64) error {
	others, err := db.All(ctx, tx, "", db.Column[int64], `DELETE FROM pgvector_collections WHERE place = ? AND name = ? AND id <> ? RETURNING id`, place, name, id)
	if err != nil {
		return err
	}
	for _, other := range others {
		if _, err := tx.ExecContext(ctx, `DROP TABLE `+table(other)); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `UPDATE pgvector_collections SET serving = true WHERE id = ?`, id)
	return err
}

// key is a document's key: see the migration.
func key(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

func keys(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = key(name)
	}
	return out
}

// tagList writes tags as a JSON list.
func tagList(tags []string) string {
	list := make([]string, len(tags))
	for i, t := range tags {
		list[i] = plain(t)
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic("pgvector: " + err.Error()) // strings always can be written
	}
	return string(b)
}

// One statement has so many documents, and so many floats of vectors (768 of them are about 9 kB of text).
const (
	maxDocuments = 1000
	maxFloats    = 1 << 18
)

// replace puts documents with their points in place of what had their names. No name and no id is there twice.
func replace(ctx context.Context, tx *sql.Tx, collection int64, entries []vector.Entry) error {
	for part := range slices.Chunk(entries, maxDocuments) {
		ids, err := putDocuments(ctx, tx, collection, part)
		if err != nil {
			return err
		}
		var old, documents []int64
		var points []vector.Point
		for _, e := range part {
			id := ids[key(e.Name)]
			old = append(old, id)
			for _, p := range e.Points {
				documents, points = append(documents, id), append(points, p)
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table(collection)+` WHERE document = ANY (?::bigint[])`, old); err != nil {
			return err
		}
		if err := putPoints(ctx, tx, collection, documents, points); err != nil {
			return err
		}
	}
	return nil
}

// putDocuments writes the rows of documents and returns their numbers by key.
func putDocuments(ctx context.Context, tx *sql.Tx, collection int64, entries []vector.Entry) (map[string]int64, error) {
	var ks, versions, types, tags []string
	var names [][]byte
	var modified []*int64
	var points []int64
	for _, e := range entries {
		ks, names, versions = append(ks, key(e.Name)), append(names, []byte(e.Name)), append(versions, plain(e.Version))
		types, tags, points = append(types, plain(e.Type)), append(tags, tagList(e.Tags)), append(points, int64(len(e.Points)))
		var at *int64
		if !e.Modified.IsZero() {
			at = new(e.Modified.UnixMilli())
		}
		modified = append(modified, at)
	}
	return db.Map(ctx, tx, "", func(row *sql.Rows) (k string, id int64, err error) {
		err = row.Scan(&k, &id)
		return k, id, err
	}, `INSERT INTO pgvector_documents (collection, key, name, version, type, tags, modified, points)
		SELECT ?::bigint, k, n, v, t, g::jsonb, m, p
		FROM unnest(?::text[], ?::bytea[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::bigint[]) AS x (k, n, v, t, g, m, p)
		ON CONFLICT (collection, key) DO UPDATE SET version = excluded.version, type = excluded.type, tags = excluded.tags,
		modified = excluded.modified, points = excluded.points RETURNING key, id`,
		collection, ks, names, versions, types, tags, modified, points)
}

// putPoints writes points, each of a document. An id that another document had goes over.
func putPoints(ctx context.Context, tx *sql.Tx, collection int64, documents []int64, points []vector.Point) error {
	for len(points) > 0 {
		n := min(len(points), max(1, maxFloats/len(points[0].Vector)))
		ids, vectors := make([]int64, n), make([]string, n)
		for i, p := range points[:n] {
			ids[i], vectors[i] = signed(p.ID), text(p.Vector)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO `+table(collection)+` (id, document, vector)
			SELECT i, d, v::vector FROM unnest(?::bigint[], ?::bigint[], ?::text[]) AS x (i, d, v)
			ON CONFLICT (id) DO UPDATE SET document = excluded.document, vector = excluded.vector`, ids, documents[:n], vectors); err != nil {
			return err
		}
		documents, points = documents[n:], points[n:]
	}
	return nil
}

// remove deletes documents with their points.
func remove(ctx context.Context, tx *sql.Tx, collection int64, names []string) error {
	ks := keys(names)
	if _, err := tx.ExecContext(ctx, `DELETE FROM `+table(collection)+` WHERE document IN
		(SELECT id FROM pgvector_documents WHERE collection = ? AND key = ANY (?::text[]))`, collection, ks); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM pgvector_documents WHERE collection = ? AND key = ANY (?::text[])`, collection, ks)
	return err
}

// documents returns what is there, by name.
func documents(ctx context.Context, d *db.DB, collection int64) ([]vector.Document, error) {
	return db.All(ctx, d.Read(), "", func(row *sql.Rows) (x vector.Document, err error) {
		var name, tags []byte
		var modified sql.NullInt64
		if err := row.Scan(&name, &x.Version, &x.Type, &tags, &modified, &x.Points); err != nil {
			return x, err
		}
		x.Name = string(name)
		if err := json.Unmarshal(tags, &x.Tags); err != nil {
			return x, fmt.Errorf("read tags of %q: %w", x.Name, err)
		}
		if len(x.Tags) == 0 {
			x.Tags = nil
		}
		if modified.Valid {
			x.Modified = time.UnixMilli(modified.Int64).UTC()
		}
		return x, nil
	}, `SELECT name, version, type, tags, modified, points FROM pgvector_documents WHERE collection = ? ORDER BY name`, collection)
}

// nearest returns the points nearest to q, in one statement: it sees a document before a change or after it.
func nearest(ctx context.Context, d *db.DB, collection int64, q vector.Query) ([]vector.Hit, error) {
	args := []any{text(q.Vector)}
	where := ""
	if !q.Filter.Empty() {
		conditions, more := conditions(q.Filter)
		where = ` WHERE document IN (SELECT id FROM pgvector_documents WHERE collection = ?` + conditions + `)`
		args = append(append(args, collection), more...)
	}
	hits, err := db.All(ctx, d.Read(), "", func(row *sql.Rows) (h vector.Hit, err error) {
		var id int64
		var name []byte
		var distance float64
		err = row.Scan(&id, &name, &distance)
		h.ID, h.Document, h.Score = unsigned(id), string(name), float32(1-distance)
		return h, err
	}, `SELECT p.id, d.name, p.distance FROM (
		SELECT id, document, vector <=> ?::vector AS distance FROM `+table(collection)+where+` ORDER BY distance, id LIMIT ?) AS p
		JOIN pgvector_documents AS d ON d.id = p.document`, append(args, q.Limit)...)
	if is(err, undefinedTable) {
		return nil, errors.Join(vector.ErrClosed, err)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(hits, func(a, b vector.Hit) int { return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ID, b.ID)) })
	return hits, nil
}

// conditions writes f as conditions on pgvector_documents, with their parameters.
func conditions(f vector.Filter) (text string, args []any) {
	var b strings.Builder
	and := func(condition string, values ...any) {
		b.WriteString(" AND " + condition)
		args = append(args, values...)
	}
	if len(f.Names)+len(f.Folders) > 0 {
		folders := make([][]byte, len(f.Folders))
		for i, folder := range f.Folders {
			folders[i] = append(bytes.TrimSuffix([]byte(folder), []byte("/")), '/')
		}
		and(`(key = ANY (?::text[]) OR EXISTS (SELECT 1 FROM unnest(?::bytea[]) AS f (folder) WHERE substring(name FROM 1 FOR length(folder)) = folder))`,
			keys(f.Names), folders)
	}
	if len(f.Types) > 0 {
		types := make([]string, len(f.Types))
		for i, t := range f.Types {
			types[i] = plain(t)
		}
		and(`type = ANY (?::text[])`, types)
	}
	for _, list := range f.Tags {
		tags := make([]string, len(list))
		for i, t := range list {
			tags[i] = plain(t)
		}
		and(`EXISTS (SELECT 1 FROM jsonb_array_elements_text(tags) AS t (tag) WHERE tag = ANY (?::text[]))`, tags)
	}
	if !f.After.IsZero() {
		and(`modified >= ?`, f.After.UnixMilli())
	}
	if !f.Before.IsZero() {
		and(`modified < ?`, f.Before.UnixMilli())
	}
	return b.String(), args
}
