/* Runs a model of a packed bundle with ONNX Runtime's C API. Memory is given back when the program ends.
 *   edge BUNDLE MODEL                replays the recorded answers; exit status 1 if one is not within its tolerance
 *   edge BUNDLE MODEL FILE SHAPE …   answers raw numbers, a file for each input, e.g. photo.rgb 1,480,640,3
 * cc -O2 edge.c -o edge -I/usr/include/onnxruntime -lonnxruntime -lzip -lcjson -lm */
#include <cjson/cJSON.h>
#include <math.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>
#define AT(value, key) cJSON_GetObjectItem(value, key)
#define FAIL(...) exit((fprintf(stderr, __VA_ARGS__), 2))
enum { MOST = 16, KINDS = 5 }; /* inputs, outputs or dimensions; kinds of numbers, */
static const char *NAMES[] = {"float32 f4", "float64 f8", "uint8 u1", "int64 i8", "bool b1"}; /* in manifest and npy */
static const int TYPES[] = {1, 11, 2, 7, 9}, BYTES[] = {4, 8, 1, 8, 1}; /* in ONNX Runtime, and bytes of a number */
static const OrtApi *ort;
static void try(OrtStatus *failed) { if (failed) FAIL("%s\n", ort->GetErrorMessage(failed)); }
static char *member(zip_t *zip, zip_int64_t place, size_t *bytes) {
  zip_stat_t stat;
  if (place < 0 || zip_stat_index(zip, (size_t)place, 0, &stat)) FAIL("a file of the bundle is missing\n");
  char *data = calloc((*bytes = stat.size) + 1, 1);
  if (zip_fread(zip_fopen_index(zip, (size_t)place, 0), data, *bytes) < 0) FAIL("a file of the bundle is damaged\n");
  return data;
}
static OrtValue *tensor(const char *kind, const char *sizes, void *data, const char *path) { /* sizes: "2,3", "2, 3)" */
  int64_t shape[MOST]; size_t rank = 0, count = 1, k = 0; OrtMemoryInfo *memory; OrtValue *value;
  for (; !strstr(NAMES[k], kind); k++) if (k == KINDS - 1) FAIL("numbers of the kind %s are not known here\n", kind);
  for (char *end; sizes += strspn(sizes, ", "), strspn(sizes, "0123456789"); sizes = end)
    count *= (size_t)(shape[rank++] = strtoll(sizes, &end, 10));
  FILE *file = path ? (data = calloc(count + 1, (size_t)BYTES[k]), fopen(path, "rb")) : NULL;
  if (path && (!file || fread(data, (size_t)BYTES[k], count, file) < count)) FAIL("%s: not %zu numbers\n", path, count);
  try(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  try(ort->CreateTensorWithDataAsOrtValue(memory, data, count * (size_t)BYTES[k], shape, rank, TYPES[k], &value));
  return value;
}
static size_t numbers(OrtValue *value, double **all) { /* how many there are; in float64 */
  OrtTensorTypeAndShapeInfo *info; ONNXTensorElementDataType t; size_t count; void *d;
  try(ort->GetTensorTypeAndShape(value, &info)); try(ort->GetTensorElementType(info, &t));
  try(ort->GetTensorShapeElementCount(info, &count)); try(ort->GetTensorMutableData(value, &d));
  *all = calloc(count + 1, sizeof(double));
  for (size_t i = 0; i < count; i++) (*all)[i] = t == 1 ? ((float *)d)[i] : t == 11 ? ((double *)d)[i]
                                               : t == 7 ? (double)((int64_t *)d)[i] : ((uint8_t *)d)[i];
  return count;
}
int main(int argc, char **argv) {
  const char *names[2][MOST]; char side[4], name[256]; OrtValue *in[MOST], *out[MOST]; OrtEnv *env; OrtSession *session;
  size_t bytes, n[2] = {0}, k, i; double *a, *b; int index, last = -1, wrong = 0; cJSON *one;
  zip_t *zip = argc >= 3 ? zip_open(argv[1], ZIP_RDONLY, NULL) : NULL;
  if (!zip) FAIL("edge BUNDLE MODEL [FILE SHAPE …], where BUNDLE is one file\n");
#define PART(file) member(zip, zip_name_locate(zip, file, 0), &bytes)
  cJSON *model = AT(AT(cJSON_Parse(PART("manifest.json")), "models"), argv[2]), *golden = AT(model, "golden");
  cJSON_ArrayForEach(one, AT(model, "inputs")) names[0][n[0]++] = AT(one, "name")->valuestring;
  cJSON_ArrayForEach(one, AT(model, "outputs")) names[1][n[1]++] = AT(one, "name")->valuestring;
  if (!golden || (argc > 3 && argc != 3 + 2 * (int)n[0])) FAIL("%s: no such model, or not its inputs\n", argv[2]);
  char *graph = PART(AT(AT(AT(model, "variants"), "fp32"), "file")->valuestring), *npy;
  try((ort = OrtGetApiBase()->GetApi(ORT_API_VERSION))->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edge", &env));
  try(ort->CreateSessionFromArray(env, graph, bytes, NULL, &session));
#define RUN() try(ort->Run(session, NULL, names[0], (void *)in, n[0], names[1], n[1], memset(out, 0, sizeof out)))
  for (k = 0, one = AT(model, "inputs")->child; argc > 3 && one; one = one->next, k++)
    in[k] = tensor(AT(one, "dtype")->valuestring, argv[4 + 2 * k], NULL, argv[3 + 2 * k]);
  if (argc > 3) for (RUN(), k = 0; k < n[1]; k++, puts(""))
    for (printf("%s", names[1][k]), bytes = numbers(out[k], &a), i = 0; i < bytes; i++) printf(" %.7g", a[i]);
  if (argc > 3) return 0;
  char *file = PART(AT(golden, "file")->valuestring), kind[3] = {0};
  zip_t *npz = zip_open_from_source(zip_source_buffer_create(file, bytes, 0, NULL), ZIP_RDONLY, NULL);
  for (zip_int64_t entry = 0; entry < zip_get_num_entries(npz, 0); entry++) { /* e.g. "003/batch 7/out/age.npy" */
    sscanf(zip_get_name(npz, (size_t)entry, 0), "%d/%*[^/]/%3[a-z]/%255[^.]", &index, side, name);
    for (k = 0; strcmp(names[*side == 'o'][k], name);) k++;
    memcpy(kind, (npy = member(npz, entry, &bytes)) + 22, 2); /* its header begins with {'descr': '<f4', */
    OrtValue *recorded = tensor(kind, strstr(npy + 10, "'shape': (") + 10, npy + 10 + *(uint16_t *)(npy + 8), NULL);
    if (*side == 'i') { in[k] = recorded; continue; }
    if (index != last) { RUN(); last = index; }
    one = AT(AT(AT(model, "parity"), "outputs"), name);
    double atol = cJSON_GetNumberValue(AT(one, "atol")), rtol = cJSON_GetNumberValue(AT(one, "rtol"));
    if (numbers(recorded, &a) != (bytes = numbers(out[k], &b))) bytes = 0, wrong++;
    for (i = 0; i < bytes; i++) wrong += !(a[i] == b[i] || fabs(a[i] - b[i]) <= atol + rtol * fabs(a[i]));
  }
  return printf("%d cases, %d wrong numbers\n", last + 1, wrong), wrong != 0;
}
