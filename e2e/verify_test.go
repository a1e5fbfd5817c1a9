package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// captured is a request as verify-outbound reads it.
type captured struct {
	Scheme  string              `json:"scheme"`
	Method  string              `json:"method"`
	Headers map[string][]string `json:"headers"`
	Body    string              `json:"body_base64"`
	Secret  string              `json:"secret"`
	Config  map[string]any      `json:"config,omitempty"`
	Lenient bool                `json:"lenient,omitempty"`
}

// verify has requests checked by the libraries that receivers use.
func verify(t *testing.T, requests []captured) {
	t.Helper()
	dir, err := verifier()
	need(t, err == nil, fmt.Sprintf("receivers' libraries: %v", err))
	const chunk = 4000
	for len(requests) > 0 {
		n := min(chunk, len(requests))
		var lines bytes.Buffer
		enc := json.NewEncoder(&lines)
		for _, r := range requests[:n] {
			if err := enc.Encode(r); err != nil {
				t.Fatal(err)
			}
		}
		requests = requests[n:]
		cmd := exec.Command("node", "verify-outbound.mjs")
		cmd.Dir, cmd.Stdin = dir, &lines
		out, err := cmd.Output()
		if ok := strings.Count("\n"+string(out), "\nok "); err != nil || ok != n {
			t.Fatalf("%d of %d requests verify (%v): %s", ok, n, err, firstFailure(out))
		}
	}
}

func firstFailure(out []byte) string {
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "ok ") {
			return line
		}
	}
	return ""
}

// verifier returns a folder with verify-outbound and its libraries, fetched once
// for each version of its package.json into the user's cache folder.
func verifier() (string, error) {
	files, sum := []string{"package.json", "verify-outbound.mjs"}, sha256.New()
	contents := make([][]byte, len(files))
	for i, name := range files {
		content, err := os.ReadFile(filepath.Join("verify-outbound", name))
		if err != nil {
			return "", err
		}
		contents[i] = content
		sum.Write(content)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "postrider", fmt.Sprintf("verify-outbound-%x", sum.Sum(nil)[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "fetch-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // it is in the cache anyway
	for i, name := range files {
		if err := os.WriteFile(filepath.Join(tmp, name), contents[i], 0o600); err != nil {
			return "", err
		}
	}
	npm := exec.Command("npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund")
	npm.Dir = tmp
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install: %w: %s", err, tail(out, 500))
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			return "", err
		}
	}
	return dir, nil
}
