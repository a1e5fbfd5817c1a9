package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"
)

// column is one column of a table: its title and the members of the JSON object
// to show, by their path; the first that is there is shown.
type column struct {
	title string
	paths []string
	whole bool // never cut: it is to be copied
}

func col(title string, paths ...string) column { return column{title: title, paths: paths} }

// maxCell bounds the text of one cell of a table, in characters.
const maxCell = 60

// show writes one entity, or with many a list of them.
func (c *connection) show(w io.Writer, columns []column, rows ...json.RawMessage) error {
	return c.showAs(w, columns, false, rows)
}

func (c *connection) showList(w io.Writer, columns []column, rows []json.RawMessage) error {
	return c.showAs(w, columns, true, rows)
}

func (c *connection) showAs(w io.Writer, columns []column, list bool, rows []json.RawMessage) error {
	if c.Output == "json" {
		if list {
			if rows == nil {
				rows = []json.RawMessage{}
			}
			return writeJSON(w, rows)
		}
		for _, row := range rows {
			if err := writeJSON(w, row); err != nil {
				return err
			}
		}
		return nil
	}
	return writeTable(w, columns, rows)
}

func writeJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

func writeTable(w io.Writer, columns []column, rows []json.RawMessage) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	_, _ = fmt.Fprintln(table, strings.Join(titles, "\t")) // the error is Flush's
	for _, row := range rows {
		var object map[string]any
		dec := json.NewDecoder(bytes.NewReader(row))
		dec.UseNumber()
		if err := dec.Decode(&object); err != nil {
			return fmt.Errorf("read an entity: %w", err)
		}
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = c.cell(object)
		}
		_, _ = fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	return table.Flush()
}

// cell is the text of the first path that leads to something.
func (c column) cell(object map[string]any) string {
	for _, path := range c.paths {
		var value any = object
		for name := range strings.SplitSeq(path, ".") {
			inner, _ := value.(map[string]any)
			value = inner[name]
		}
		if text := cellText(value); text != "" {
			if c.whole {
				return clip(text, len(text))
			}
			return clip(text, maxCell)
		}
	}
	return "-"
}

func cellText(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		items := make([]string, len(v))
		for i := range v {
			items[i] = cellText(v[i])
		}
		return strings.Join(items, ",")
	case map[string]any:
		text, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(text)
	default:
		return fmt.Sprint(v)
	}
}

// clip returns at most n characters of a text, on one line and without what a
// terminal would act on.
func clip(text string, n int) string {
	var out strings.Builder
	count := 0
	for _, r := range text {
		if count == n {
			_, _ = out.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		_, _ = out.WriteRune(r)
		count++
	}
	return out.String()
}

// terminal writes lines, in colour if the other end is a terminal that wants it.
type terminal struct {
	out    io.Writer
	colour bool
}

func newTerminal(out io.Writer) *terminal {
	t := &terminal{out: out}
	if f, ok := out.(*os.File); ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		info, err := f.Stat()
		t.colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return t
}

// ANSI colours.
const (
	green  = "32"
	yellow = "33"
	red    = "31"
	grey   = "90"
)

// paint returns the text in a colour, or as it is.
func (t *terminal) paint(colour, text string) string {
	if !t.colour || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// line writes one line.
func (t *terminal) line(format string, args ...any) {
	_, _ = fmt.Fprintf(t.out, format+"\n", args...) // nobody is left to tell
}
