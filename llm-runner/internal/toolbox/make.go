package toolbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// Make returns t with the schema of A, a struct whose fields have json names and, in their jsonschema tags, descriptions.
// Arguments that do not fit the schema never reach run; the model is told what is wrong with them.
func Make[A any](t Tool, run func(ctx context.Context, c Call, args A) (Result, error)) Tool {
	schema, err := jsonschema.For[A](nil)
	if err != nil {
		panic(fmt.Sprintf("schema of tool %s: %v", t.Name, err)) // A is a type of this program
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		panic(fmt.Sprintf("schema of tool %s: %v", t.Name, err))
	}
	if t.Schema, err = json.Marshal(schema); err != nil {
		panic(fmt.Sprintf("schema of tool %s: %v", t.Name, err))
	}
	t.Run = func(ctx context.Context, c Call) (Result, error) {
		var args A
		if err := fit(resolved, c.Arguments, &args); err != nil {
			return Result{}, err
		}
		return run(ctx, c, args)
	}
	return t
}

// fit checks arguments against a schema and reads them.
func fit(s *jsonschema.Resolved, arguments json.RawMessage, into any) error {
	var loose map[string]any
	if err := json.Unmarshal(arguments, &loose); err != nil {
		return fmt.Errorf("the arguments are not a JSON object: %w", err)
	}
	if err := s.Validate(loose); err != nil {
		return fmt.Errorf("the arguments do not fit the schema: %w", err)
	}
	return Arguments(arguments, into)
}

// Arguments reads arguments into a struct; a field that it does not have is an error.
func Arguments(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return fmt.Errorf("the argument %s is a %s, and should be a %s", wrong.Field, wrong.Value, kind(wrong.Type))
		}
		return fmt.Errorf("read arguments: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the arguments' object")
	}
	return nil
}

func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Slice:
		return "list"
	}
	if strings.HasPrefix(t.Kind().String(), "int") {
		return "whole number"
	}
	return t.String()
}

// tidy returns arguments as a model wrote them as one JSON object: nothing at all is an empty one.
func tidy(raw string) (json.RawMessage, error) {
	if raw = strings.TrimSpace(raw); raw == "" || raw == "null" {
		return json.RawMessage("{}"), nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(raw), &object); err != nil {
		return nil, fmt.Errorf("the arguments are not a JSON object: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(raw)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
