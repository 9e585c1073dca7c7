// What Argo CD makes of objects, by its own code. Both commands read objects as JSON from standard
// input.
//
//	argocd-says health ARGOCD-CM.json   a line for each: the health that Argo CD shows
//	argocd-says read                    fails on an Application or ApplicationSet with other fields
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Begins the keys that Argo CD takes health checks from: PREFIX + GROUP_KIND.
const prefix = "resource.customizations.health."

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "argocd-says:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "health":
		checks, err := healthChecks(arguments[1])
		if err != nil {
			return err
		}
		return eachObject(func(object *unstructured.Unstructured) error { return judge(checks, object) })
	case len(arguments) == 1 && arguments[0] == "read":
		return eachObject(read)
	}
	return errors.New("say `health ARGOCD-CM.json` or `read`")
}

func eachObject(do func(*unstructured.Unstructured) error) error {
	objects := json.NewDecoder(os.Stdin)
	for {
		// As the API server's client does it, whole numbers become integers.
		object, text := &unstructured.Unstructured{}, json.RawMessage{}
		if err := objects.Decode(&text); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		if err := do(object); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

func healthChecks(path string) (lua.ResourceHealthOverrides, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var settings struct{ Data map[string]string }
	if err := json.Unmarshal(text, &settings); err != nil {
		return nil, err
	}
	checks := lua.ResourceHealthOverrides{}
	for key, script := range settings.Data {
		if kind, ok := strings.CutPrefix(key, prefix); ok {
			checks[strings.Replace(kind, "_", "/", 1)] = v1alpha1.ResourceOverride{HealthLua: script}
		}
	}
	return checks, nil
}

func judge(checks lua.ResourceHealthOverrides, object *unstructured.Unstructured) error {
	health, err := checks.GetResourceHealth(object)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(health)
}

func read(object *unstructured.Unstructured) error {
	kinds := map[string]any{"Application": &v1alpha1.Application{}, "ApplicationSet": &v1alpha1.ApplicationSet{}}
	kind, ok := kinds[object.GetKind()]
	if !ok {
		return errors.New("not a kind of Argo CD")
	}
	text, err := object.MarshalJSON()
	if err != nil {
		return err
	}
	fields := json.NewDecoder(strings.NewReader(string(text)))
	fields.DisallowUnknownFields()
	return fields.Decode(kind)
}
