package db

import (
	"context"
	"database/sql/driver"
	"reflect"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// connector makes connections to PostgreSQL that speak our SQL: parameters are ? there as in SQLite. This is the one place
// where statements are translated.
type connector struct{ driver.Connector }

func newConnector(config *pgx.ConnConfig) driver.Connector {
	return connector{stdlib.GetConnector(*config)}
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn{raw.(*stdlib.Conn)}, nil
}

// conn is a connection of pgx's driver, which lends it all that is not translated.
type conn struct{ *stdlib.Conn }

func (c conn) Prepare(query string) (driver.Stmt, error) { return c.Conn.Prepare(numbered(query)) }

func (c conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return c.Conn.PrepareContext(ctx, numbered(query))
}

func (c conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if len(args) > 0 {
		query = numbered(query)
	}
	return c.Conn.ExecContext(ctx, query, args)
}

func (c conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if len(args) > 0 {
		query = numbered(query)
	}
	return c.Conn.QueryContext(ctx, query, args)
}

// CheckNamedValue has strings arrive as PostgreSQL takes them: it refuses bytes that are not UTF-8, and NUL, which models and
// callers do send and SQLite keeps.
func (c conn) CheckNamedValue(v *driver.NamedValue) error {
	if x := reflect.ValueOf(v.Value); x.Kind() == reflect.String {
		v.Value = strings.ReplaceAll(strings.ToValidUTF8(x.String(), "\uFFFD"), "\x00", "\uFFFD")
	}
	return c.Conn.CheckNamedValue(v)
}

// numbered replaces the parameters ? of a statement by $1, $2, ... Those in quotes are text.
func numbered(query string) string {
	if !strings.Contains(query, "?") {
		return query
	}
	var b strings.Builder
	var quote byte
	n := 0
	for i := range len(query) {
		c := query[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '?':
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
