package telemetry_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	oftelemetry "github.com/open-feature/go-sdk/openfeature/telemetry"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/sdk/telemetry"
)

// The names of a report that are not ours are OpenTelemetry's, in the meaning that
// it gives them, or an annotation of OCI images.
func TestReportsAreNamedAsOpenTelemetryDoes(t *testing.T) {
	theirs := []string{string(semconv.ServiceInstanceIDKey), string(semconv.ServiceVersionKey), string(semconv.VCSRefHeadRevisionKey), string(semconv.OCIManifestDigestKey),
		string(semconv.ProcessCreationTimeKey), "org.opencontainers.image.base.digest", "target"}
	seen := 0
	for i := range reflect.TypeFor[api.Instance]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[api.Instance]().Field(i).Tag.Get("json"), ",")
		if slices.Contains(theirs, name) {
			seen++
		} else if !strings.HasPrefix(name, "sealstone.") {
			t.Errorf("%s is neither a name of ours nor of the conventions", name)
		}
	}
	if seen != len(theirs) {
		t.Errorf("a report has %d of %q", seen, theirs)
	}
	if telemetry.ImageKey != semconv.OCIManifestDigestKey {
		t.Errorf("spans name the image %s", telemetry.ImageKey)
	}
}

// What the hook takes from OpenFeature is what the conventions say now.
func TestEvaluationEventsAreNamedAsOpenTelemetryDoes(t *testing.T) {
	for got, want := range map[string]string{
		oftelemetry.FlagKey: string(semconv.FeatureFlagKeyKey), oftelemetry.ProviderNameKey: string(semconv.FeatureFlagProviderNameKey),
		oftelemetry.ResultVariantKey: string(semconv.FeatureFlagResultVariantKey), oftelemetry.ResultValueKey: string(semconv.FeatureFlagResultValueKey),
		oftelemetry.ResultReasonKey: string(semconv.FeatureFlagResultReasonKey), oftelemetry.FlagSetIDKey: string(semconv.FeatureFlagSetIDKey),
		oftelemetry.VersionKey: string(semconv.FeatureFlagVersionKey), oftelemetry.ContextIDKey: string(semconv.FeatureFlagContextIDKey),
		oftelemetry.ErrorTypeKey: string(semconv.ErrorTypeKey), telemetry.ErrorMessageKey: string(semconv.FeatureFlagErrorMessageKey),
	} {
		if got != want {
			t.Errorf("%s, the conventions say %s", got, want)
		}
	}
}
