package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const testKey = "key_of_the_test"

// seen is a request that reached the fake API.
type seen struct {
	Line   string // method, path and query
	Header map[string]string
	Body   string
}

// fakeAPI answers every request with a status and a body, and tells what came.
func fakeAPI(t *testing.T, status int, answer string) (address string, requests *[]seen) {
	t.Helper()
	requests = new([]seen)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.Header.Get("Authorization") != "Bearer "+testKey {
			t.Errorf("%s %s: Authorization is %q", r.Method, r.URL, r.Header.Get("Authorization"))
		}
		header := map[string]string{}
		for name := range r.Header {
			switch name {
			case "Authorization", "User-Agent", "Accept-Encoding", "Content-Length":
			default:
				header[name] = r.Header.Get(name)
			}
		}
		*requests = append(*requests, seen{r.Method + " " + r.URL.RequestURI(), header, string(body)})
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	t.Setenv("POSTRIDER_API", server.URL)
	t.Setenv("POSTRIDER_API_KEY", testKey)
	t.Setenv("POSTRIDER_TENANT", "acme")
	return server.URL, requests
}

// clientRequests are command lines and the request that each makes.
func clientRequests() []struct{ args, line, header, body string } {
	const ep, sub = "/v1/tenants/acme/endpoints", "/v1/tenants/acme/subscriptions"
	list := func(path string) string { return "GET " + path + "?limit=250" }
	return []struct{ args, line, header, body string }{
		{"tenants list", list("/v1/tenants"), "", ""},
		{"tenants list --limit 7", "GET /v1/tenants?limit=7", "", ""},
		{"tenants get a/b", "GET /v1/tenants/a%2Fb", "", ""},
		{"tenants put t1", "PUT /v1/tenants/t1", "", `{}`},
		{
			"tenants create t1 --name=N --metadata=a=b,c --metadata=d=e --events-per-second=5 --bytes-per-second=6 --new --if-match=x",
			"PUT /v1/tenants/t1", "If-Match=x If-None-Match=*",
			`{"metadata":{"a":"b,c","d":"e"},"name":"N","quota":{"bytes_per_second":6,"events_per_second":5}}`,
		},
		{"tenants delete t1 --if-match=x", "DELETE /v1/tenants/t1", "If-Match=x", ""},

		{"endpoints list", list(ep), "", ""},
		{"endpoints list --tenant=other", list("/v1/tenants/other/endpoints"), "", ""},
		{"endpoints get ep_1", "GET " + ep + "/ep_1", "", ""},
		{"endpoints create --url=https://a/b", "POST " + ep, "", `{"url":"https://a/b"}`},
		{"endpoints create --settings=testdata/new.json", "POST " + ep, "", `{"rate_limit":{"per_second":5},"subscriptions":[],"url":"https://a/b"}`},
		{
			"endpoints create --settings=testdata/new.json --url=u --types=a", "POST " + ep, "",
			`{"rate_limit":{"per_second":5},"subscriptions":[{"types":["a"]}],"url":"u"}`,
		},
		{"endpoints create --url=u --no-subscriptions", "POST " + ep, "", `{"subscriptions":[],"url":"u"}`},
		{
			"endpoints create --url=u --types=a.*,b --filter=data.x>1 --secret=whsec_x --idempotency-key=k", "POST " + ep, "Idempotency-Key=k",
			`{"secret":"whsec_x","subscriptions":[{"filter":"data.x\u003e1","types":["a.*","b"]}],"url":"u"}`,
		},
		{
			"endpoints create --url=u --description=d --metadata=a=b --timeout=5s --max-in-flight=3 --retry-schedule=1s,2s --retry-max-age=3h --trace-context",
			"POST " + ep, "",
			`{"description":"d","max_in_flight":3,"metadata":{"a":"b"},"retry":{"max_age":"3h","schedule":["1s","2s"]},"timeout":"5s","trace_context":true,"url":"u"}`,
		},
		{"endpoints update ep_1 --url=u --no-trace-context --if-match=x", "PATCH " + ep + "/ep_1", "If-Match=x", `{"trace_context":false,"url":"u"}`},
		{"endpoints patch ep_1 --description= --unset=retry,timeout", "PATCH " + ep + "/ep_1", "", `{"description":"","retry":null,"timeout":null}`},
		{
			"endpoints create --url=u --secret-kind=ed25519 --signing-scheme=custom --signing-header=X-S --signing-algorithm=sha1 --signing-encoding=base64 " +
				"--signing-prefix=p= --signing-start=t={timestamp}; --signing-separator=; --signing-template={body} --signing-timestamp-header=X-T " +
				"--signing-id-header=X-I --signing-type-header=X-E",
			"POST " + ep, "",
			`{"secret_kind":"ed25519","signing":{"algorithm":"sha1","encoding":"base64","header":"X-S","id_header":"X-I","prefix":"p=","scheme":"custom",` +
				`"separator":";","start":"t={timestamp};","template":"{body}","timestamp_header":"X-T","type_header":"X-E"},"url":"u"}`,
		},
		{"endpoints update ep_1 --signing-prefix=p", "PATCH " + ep + "/ep_1", "", `{"signing":{"prefix":"p"}}`},
		{
			"endpoints update ep_1 --signing-scheme=custom --signing-header=X-S", "PATCH " + ep + "/ep_1", "",
			`{"signing":{"algorithm":null,"encoding":null,"header":"X-S","id_header":null,"prefix":null,"scheme":"custom","separator":null,` +
				`"start":null,"template":null,"timestamp_header":null,"type_header":null}}`,
		},
		{"endpoints update ep_1 --no-ordered", "PATCH " + ep + "/ep_1", "", `{"on_exhausted":null,"ordered":false}`},
		{"endpoints update ep_1 --ordered --on-exhausted=block", "PATCH " + ep + "/ep_1", "", `{"on_exhausted":"block","ordered":true}`},
		{"endpoints update ep_1 --unset=signing", "PATCH " + ep + "/ep_1", "", `{"signing":null}`},
		{
			"endpoints create --url=u --method=PUT --format=raw --compression=gzip --bearer=t --header=A=1=2 --secret-header=B=3", "POST " + ep, "",
			`{"auth":{"bearer":{"token":"t"}},"compression":"gzip","format":"raw","headers":{"A":{"value":"1=2"},"B":{"secret":true,"value":"3"}},"method":"PUT","url":"u"}`,
		},
		{
			"endpoints update ep_1 --basic=a:b:c --unset-header=X --header=Y=1", "PATCH " + ep + "/ep_1", "",
			`{"auth":{"basic":{"password":"b:c","username":"a"},"bearer":null,"oauth2":null},"headers":{"X":null,"Y":{"value":"1"}}}`,
		},
		{
			"endpoints create --url=u --oauth-token-url=t --oauth-client-id=c --oauth-client-secret=s --oauth-scopes=a,b --oauth-audience=x --oauth-style=body",
			"POST " + ep, "", `{"auth":{"oauth2":{"audience":"x","client_id":"c","client_secret":"s","scopes":["a","b"],"style":"body","token_url":"t"}},"url":"u"}`,
		},
		{"endpoints update ep_1 --unset=auth,tls,headers,method,format,compression", "PATCH " + ep + "/ep_1", "", `{"auth":null,"compression":null,"format":null,"headers":null,"method":null,"tls":null}`},
		{
			"endpoints update ep_1 --tls-cert=testdata/a.pem --tls-key=testdata/a.pem --tls-ca=testdata/a.pem", "PATCH " + ep + "/ep_1", "",
			`{"tls":{"ca":"a\n","client_certificate":"a\n","client_key":"a\n"}}`,
		},
		{
			"endpoints update ep_1 --settings=testdata/settings.json --format=raw", "PATCH " + ep + "/ep_1", "",
			`{"auth":{"bearer":{"token":"t"}},"format":"raw","method":"PUT"}`,
		},
		{"endpoints delete ep_1 --if-match=x", "DELETE " + ep + "/ep_1", "If-Match=x", ""},
		{"endpoints pause ep_1", "POST " + ep + "/ep_1/pause", "", ""},
		{"endpoints resume ep_1 --if-match=x", "POST " + ep + "/ep_1/resume", "If-Match=x", ""},
		{"endpoints enable ep_1", "POST " + ep + "/ep_1/enable", "", ""},
		{"endpoints disable ep_1", "POST " + ep + "/ep_1/disable", "", ""},
		{"endpoints rotate-secret ep_1", "POST " + ep + "/ep_1/rotate-secret", "", `{}`},
		{"endpoints rotate-secret ep_1 --new-secret=s --overlap=0s", "POST " + ep + "/ep_1/rotate-secret", "", `{"overlap":"0s","secret":"s"}`},
		{"endpoints rotate-secret ep_1 --secret-kind=hmac", "POST " + ep + "/ep_1/rotate-secret", "", `{"secret_kind":"hmac"}`},
		{"endpoints secret ep_1", "GET " + ep + "/ep_1/secret", "", ""},
		{"endpoints test ep_1 --idempotency-key=k", "POST " + ep + "/ep_1/test", "Idempotency-Key=k", ""},

		{"subscriptions list --endpoint=ep_1", "GET " + sub + "?endpoint=ep_1&limit=250", "", ""},
		{"subscriptions get sub_1", "GET " + sub + "/sub_1", "", ""},
		{
			"subscriptions create --endpoint=ep_1 --types=a --filter=true --idempotency-key=k", "POST " + sub, "Idempotency-Key=k",
			`{"endpoint_id":"ep_1","filter":"true","types":["a"]}`,
		},
		{"subscriptions update sub_1 --types=a,b --unset=filter", "PATCH " + sub + "/sub_1", "", `{"filter":null,"types":["a","b"]}`},
		{"subscriptions delete sub_1", "DELETE " + sub + "/sub_1", "", ""},
		{"subscriptions match --type=a --data=[1]", "POST " + sub + "/match", "", `{"data":[1],"type":"a"}`},

		{"deliveries cancel dlv_1 --endpoint=ep_1", "POST /v1/tenants/acme/deliveries/dlv_1/cancel", "", `{"endpoint_id":"ep_1"}`},

		{"reseal", "POST /v1/seal-key/reseal", "", ""},
		{"reseal --check", "GET /v1/seal-key", "", ""},

		{"keys list", list("/v1/tenants/acme/keys"), "", ""},
		{"keys create --role=producer --name=n --idempotency-key=k", "POST /v1/tenants/acme/keys", "Idempotency-Key=k", `{"name":"n","role":"producer"}`},
		{"keys delete key_1 --if-match=x", "DELETE /v1/tenants/acme/keys/key_1", "If-Match=x", ""},
	}
}

func TestClientRequests(t *testing.T) {
	for _, tc := range clientRequests() {
		t.Run(tc.args, func(t *testing.T) {
			_, requests := fakeAPI(t, http.StatusOK, `{}`)
			got := command(t, "", strings.Fields(tc.args)...)
			if got.code != 0 {
				t.Fatalf("code %d: %s", got.code, got.err)
			}
			want := seen{Line: tc.line, Header: map[string]string{}, Body: tc.body}
			if tc.body != "" {
				want.Header["Content-Type"] = "application/json"
			}
			for pair := range strings.FieldsSeq(tc.header) {
				name, value, _ := strings.Cut(pair, "=")
				want.Header[name] = value
			}
			if diff := cmp.Diff([]seen{want}, *requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEventsSend(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, []byte(`{"a" : "<é>"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const plain, cloud = "application/json", "application/cloudevents"
	for _, tc := range []struct {
		name, stdin string
		args        []string
		header      map[string]string
		body        string
	}{
		{"data is untouched", "", []string{"--type=a.b", "--file=" + file}, map[string]string{"Content-Type": plain}, `{"tenant":"acme","type":"a.b","data":{"a" : "<é>"}}`},
		{
			"every attribute", "1",
			[]string{"--type=t", "--id=i", "--source=/s", "--subject=u", "--time=2026-01-02T03:04:05Z", "--partitionkey=p", "--extension=x=1,2", "--extension=y=3"},
			map[string]string{"Content-Type": plain},
			`{"extensions":{"x":"1,2","y":"3"},"id":"i","partitionkey":"p","source":"/s","subject":"u","tenant":"acme","time":"2026-01-02T03:04:05Z","type":"t","data":1}`,
		},
		{"no data", "", []string{"--type=t"}, map[string]string{"Content-Type": plain}, `{"tenant":"acme","type":"t"}`},
		{"text", "hello", []string{"--type=t", "--content-type=text/plain"}, map[string]string{"Content-Type": plain}, `{"datacontenttype":"text/plain","tenant":"acme","type":"t","data":"hello"}`},
		{"whole plain body", `{"type":"x"}`, []string{"--file=-"}, map[string]string{"Content-Type": plain}, `{"type":"x","tenant":"acme"}`},
		{
			"binary", "\x00\xff",
			[]string{"--format=binary", "--type=t", "--id=i 1", "--source=/ü", "--content-type=image/png", "--extension=x=1"},
			map[string]string{
				"Content-Type": "image/png", "Ce-Specversion": "1.0", "Ce-Type": "t", "Ce-Id": "i%201", "Ce-Source": "/%C3%BC",
				"Ce-Tenant": "acme", "Ce-X": "1",
			},
			"\x00\xff",
		},
		{"structured", "", []string{"--format=structured", `--data={"specversion":"1.0"}`}, map[string]string{"Content-Type": cloud + "+json"}, `{"specversion":"1.0","tenant":"acme"}`},
		{"batch", "[]", []string{"--format=batch"}, map[string]string{"Content-Type": cloud + "-batch+json"}, `[]`},
		{"lines", "{}\n{}", []string{"--format=ndjson"}, map[string]string{"Content-Type": "application/x-ndjson"}, `{"tenant":"acme"}` + "\n" + `{"tenant":"acme"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, requests := fakeAPI(t, http.StatusAccepted, `{"id":"evt_1","cloudevents_id":"i","position":"1.2"}`)
			got := command(t, tc.stdin, append([]string{"events", "send"}, tc.args...)...)
			if got.code != 0 || !strings.Contains(got.out, "evt_1  i               1.2") {
				t.Errorf("code %d: %s\n%s", got.code, got.err, got.out)
			}
			want := []seen{{"POST /v1/events", tc.header, tc.body}}
			if diff := cmp.Diff(want, *requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRefusedBeforeSending names what is wrong without asking the gateway.
func TestRefusedBeforeSending(t *testing.T) {
	for _, tc := range []struct{ args, stdin, want string }{
		{"events send --type=t --data={", "", "not JSON"},
		{"events send", "", "no data"},
		{"events send --format=binary --type=t", "", "needs --type, --id and --source"},
		{"events send --format=batch --type=t", "[]", "attributes stand in it"},
		{"events send --type=t --data=1 --file=x", "", "exclude each other"},
		{"events send --type=t --file=/does/not/exist", "", "/does/not/exist"},
		{"endpoints create --types=a", "", "no URL: give --url"},
		{"endpoints update ep_1", "", "nothing to change"},
		{"subscriptions update sub_1", "", "nothing to change"},
		{"endpoints update ep_1 --bearer=a --basic=b:c", "", "exclude each other"},
		{"endpoints update ep_1 --basic=b", "", "NAME:PASSWORD"},
		{"endpoints update ep_1 --settings=-", "[]", "want a JSON object"},
		{"endpoints update ep_1 --settings=/does/not/exist", "", "/does/not/exist"},
		{"endpoints create --url=u --tls-ca=/does/not/exist", "", "/does/not/exist"},
		{"endpoints update ep_1 --unset=headers --unset-header=X", "", "--unset-header"},
		{"endpoints create --url=u --no-subscriptions --types=a", "", "excludes"},
		{"subscriptions match --type=a --data={", "", "not JSON"},
		{"tenants list --limit=0", "", "--limit"},
		{"tenants list --api=ftp://x", "", "want a URL"},
		{"endpoints list --tenant=", "", "no tenant"},
		{"listen --status=99", "", "--status"},
		{"listen --secret=x", "", "whsec_"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			_, requests := fakeAPI(t, http.StatusOK, `{}`)
			got := command(t, tc.stdin, strings.Fields(tc.args)...)
			if got.code == 0 || !strings.Contains(got.err, tc.want) || len(*requests) > 0 {
				t.Errorf("code %d, error %q, want %q in it; %d requests, want none", got.code, got.err, tc.want, len(*requests))
			}
		})
	}
}

func TestProblems(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		body   string
		want   []string
	}{
		{
			"a problem", 422, `{"code":"invalid_url","detail":"is wrong","errors":[{"pointer":"/url","detail":"is wrong"},{"pointer":"/timeout","detail":"too long"}],"request_id":"req_1"}`,
			[]string{"422 invalid_url: is wrong (at /url)\n  /timeout: too long\n  request: req_1"},
		},
		{"an unknown outcome", 503, `{"code":"outcome_unknown","detail":"repeat","id":"evt_1"}`, []string{"503 outcome_unknown: repeat", "event id: evt_1"}},
		{"no problem", 502, "<html>\x1b[31mbad gateway", []string{"502 Bad Gateway: <html> [31mbad gateway"}},
		{"a redirect is not followed", 302, "", []string{"302 Found"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _ = fakeAPI(t, tc.status, tc.body)
			got := command(t, "", "endpoints", "get", "ep_1")
			for _, want := range tc.want {
				if got.code != 1 || !strings.Contains(got.err, want) {
					t.Errorf("code %d, error %q, want %q in it", got.code, got.err, want)
				}
			}
		})
	}
}

// TestNoGateway says what to look at where nothing answers.
func TestNoGateway(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.URL
	server.Close()
	got := command(t, "", "tenants", "list", "--api="+address, "--api-key=k")
	if got.code != 1 || !strings.Contains(got.err, "is the gateway running there? --api or POSTRIDER_API says where") {
		t.Errorf("code %d, error %q", got.code, got.err)
	}
}

func TestPartlyAccepted(t *testing.T) {
	_, _ = fakeAPI(t, http.StatusMultiStatus, `{"accepted":1,"results":[{"status":202,"id":"evt_1"},{"status":422,"problem":{"code":"invalid_event","detail":"type: is required"}}]}`)
	got := command(t, `[{},{}]`, "events", "send", "--format=batch")
	if got.code != 1 || !strings.Contains(got.err, "1 of 2 events were not accepted") || !strings.Contains(got.out, "type: is required") {
		t.Errorf("code %d, error %q, output:\n%s", got.code, got.err, got.out)
	}
}

func TestOutput(t *testing.T) {
	const entity = `{"id":"ep_1","url":"https://a/` + "\\u001b[31m" + `","effective_state":"paused","etag":"\"5\""}`
	t.Run("table", func(t *testing.T) {
		_, _ = fakeAPI(t, http.StatusOK, `{"data":[`+entity+`]}`)
		want := "ID    STATE   URL              DESCRIPTION  HEALTH  CREATED  ETAG\n" +
			"ep_1  paused  https://a/ [31m  -            -       -        \"5\"\n"
		if got := command(t, "", "endpoints", "list"); got.out != want {
			t.Errorf("code %d (-want +got):\n%s", got.code, cmp.Diff(want, got.out))
		}
	})
	t.Run("json", func(t *testing.T) {
		_, _ = fakeAPI(t, http.StatusOK, entity)
		got := command(t, "", "endpoints", "get", "ep_1", "-o", "json")
		var want, have any
		if err := json.Unmarshal([]byte(entity), &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(got.out), &have); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("empty list", func(t *testing.T) {
		_, _ = fakeAPI(t, http.StatusOK, `{"data":[]}`)
		if got := command(t, "", "keys", "list", "-o", "json"); got.out != "[]\n" {
			t.Errorf("got %q, want []", got.out)
		}
	})
	t.Run("no body", func(t *testing.T) {
		_, _ = fakeAPI(t, http.StatusNoContent, "")
		if got := command(t, "", "keys", "delete", "key_1"); got.out != "done\n" {
			t.Errorf("got %q, want done", got.out)
		}
	})
	t.Run("a token is not cut", func(t *testing.T) {
		token := strings.Repeat("x", 200)
		_, _ = fakeAPI(t, http.StatusCreated, `{"id":"key_1","token":"`+token+`"}`)
		if got := command(t, "", "keys", "create", "--role=admin"); !strings.Contains(got.out, token) {
			t.Errorf("got %q", got.out)
		}
	})
}

// TestListFollowsPages reads all pages, up to the limit.
func TestListFollowsPages(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cursor, limit := r.URL.Query().Get("cursor"), r.URL.Query().Get("limit")
		switch {
		case cursor == "" && limit == "250":
			_, _ = fmt.Fprintf(w, `{"data":[%s{"id":"k"}],"next_cursor":"c1"}`, strings.Repeat(`{"id":"k"},`, 249))
		case cursor == "c1" && limit == "50":
			_, _ = fmt.Fprintf(w, `{"data":[%s{"id":"last"}],"next_cursor":"c2"}`, strings.Repeat(`{"id":"k"},`, 49))
		default:
			t.Errorf("unexpected page: %s", r.URL.RawQuery)
		}
	}))
	t.Cleanup(server.Close)
	got := command(t, "", "tenants", "list", "--limit=300", "--api="+server.URL, "--api-key=k", "-o", "json")
	var rows []map[string]string
	if err := json.Unmarshal([]byte(got.out), &rows); err != nil {
		t.Fatalf("%v: %s", err, got.err)
	}
	if len(rows) != 300 || rows[299]["id"] != "last" {
		t.Errorf("%d rows, the last one is %v", len(rows), rows[len(rows)-1])
	}
}

// TestKeyOfTheClient looks for the key in its three places.
func TestKeyOfTheClient(t *testing.T) {
	t.Chdir(t.TempDir())
	api, _ := fakeAPI(t, http.StatusOK, `{"data":[]}`)
	t.Setenv("POSTRIDER_API_KEY", "")
	list := func() result { return command(t, "", "tenants", "list", "--api="+api) }
	if got := list(); got.code == 0 || !strings.Contains(got.err, "no key") {
		t.Errorf("without a key: code %d, error %q", got.code, got.err)
	}
	if err := os.MkdirAll("postrider-data", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("postrider-data/admin.key", []byte(testKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := list(); got.code != 0 {
		t.Errorf("key of dev: %s", got.err)
	}
	if err := os.WriteFile("postrider-data/admin.key", []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("POSTRIDER_ADMIN_KEY", testKey)
	if got := list(); got.code != 0 {
		t.Errorf("admin key: %s", got.err)
	}
}

func TestKeysOfDev(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var first string
	for range 2 {
		var errs buffer
		dev := devCmd{}
		dev.Dev.Data = dir
		if err := dev.loadKeys(streams{nil, io.Discard, &errs}); err != nil {
			t.Fatal(err)
		}
		if len(dev.AdminKey) < minAdminKey || dev.SealKey == "" || !strings.Contains(errs.String(), dev.AdminKey) {
			t.Errorf("admin key %q, seal key set: %v, shown: %s", dev.AdminKey, dev.SealKey != "", errs.String())
		}
		if first == "" {
			first = dev.AdminKey
		}
		if dev.AdminKey != first {
			t.Error("the second start made another key")
		}
	}
	for _, name := range []string{adminKeyFile, sealKeyFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v, want 0600", name, info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, adminKeyFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&devCmd{Config: Config{Dev: devConfig{Data: dir}}}).loadKeys(streams{nil, io.Discard, io.Discard}); err == nil {
		t.Error("an empty key file was taken for a key")
	}
}

func TestSealKey(t *testing.T) {
	first := command(t, "", "seal-key")
	second := command(t, "", "seal-key", "--rotate="+strings.TrimSpace(first.out))
	if first.code != 0 || second.code != 0 || len(second.out) <= len(first.out) {
		t.Errorf("codes %d and %d (%s); a rotated keyset has more in it: %d and %d bytes", first.code, second.code, second.err, len(first.out), len(second.out))
	}
	third := command(t, "", "seal-key", "--retire", "--rotate="+strings.TrimSpace(second.out))
	if third.code != 0 || len(third.out) != len(first.out) || third.out == first.out {
		t.Errorf("code %d (%s): a retired keyset has one key, the new one", third.code, third.err)
	}
	if got := command(t, "", "seal-key", "--retire"); got.code == 0 || !strings.Contains(got.err, "POSTRIDER_SEAL_KEY") {
		t.Errorf("nothing to retire: code %d, error %q", got.code, got.err)
	}
	if got := command(t, "", "seal-key", "--rotate=nonsense"); got.code == 0 || strings.Contains(got.err, "nonsense") {
		t.Errorf("a bad keyset: code %d, error %q", got.code, got.err)
	}
}

func TestAPIURL(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080", ":8080": "http://127.0.0.1:8080", "0.0.0.0:1": "http://127.0.0.1:1",
		"[::]:1": "http://127.0.0.1:1", "[::1]:1": "http://[::1]:1", "host:1": "http://host:1",
	} {
		if got := apiURL(listen); got != want {
			t.Errorf("%s: %s, want %s", listen, got, want)
		}
	}
}

// The tenant of the connection is given to events that name none; what is no
// JSON stays as it is.
func TestTenantIn(t *testing.T) {
	for _, row := range []struct {
		lines      bool
		body, want string
	}{
		{false, `{"type":"a"}`, `{"type":"a","tenant":"acme"}`},
		{false, "{ }\n", "{\"tenant\":\"acme\"}\n"},
		{false, `{"type":"a","tenant":"b"}`, `{"type":"a","tenant":"b"}`},
		{false, `[{"type":"a"},{"tenant":"b"}]`, `[{"type":"a","tenant":"acme"},{"tenant":"b"}]`},
		{true, "{\"x\":1}\n\n{\"x\":2}\n", "{\"x\":1,\"tenant\":\"acme\"}\n\n{\"x\":2,\"tenant\":\"acme\"}\n"},
		{false, `{"type":`, `{"type":`},
		{false, `7`, `7`},
	} {
		if got := string(tenantIn([]byte(row.body), "acme", row.lines)); got != row.want {
			t.Errorf("tenantIn(%q) = %q, want %q", row.body, got, row.want)
		}
	}
}
