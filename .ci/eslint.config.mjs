// The page's JavaScript: eslint --config .ci/eslint.config.mjs dnnlib/page/static (no plug-ins; .ci/run does it)

const browser = [
  "document", "sessionStorage", "fetch", "FormData", "console", "EventSource", "Image", "Option", "ResizeObserver", "performance",
  "requestAnimationFrame", "addEventListener", "structuredClone", "setTimeout", "clearTimeout", "setInterval",
  "clearInterval",
];
const globals = Object.fromEntries(browser.map(name => [name, "readonly"]));

export default [{
  files: ["dnnlib/page/static/*.mjs"],
  languageOptions: {ecmaVersion: 2022, sourceType: "module", globals},
  linterOptions: {reportUnusedDisableDirectives: "error"},
  rules: {
    "no-undef": "error", "no-unused-vars": "error", "no-redeclare": "error", "no-shadow": "off", "no-var": "error",
    "prefer-const": "error", eqeqeq: "error", "no-implicit-globals": "error", "no-eval": "error",
    "no-implied-eval": "error", "no-new-func": "error", "no-dupe-keys": "error", "no-dupe-class-members": "error", "no-unreachable": "error",
    "no-fallthrough": "error", "no-self-assign": "error", "no-const-assign": "error", "no-func-assign": "error",
    "no-import-assign": "error", "no-use-before-define": "off", "no-cond-assign": "error", "no-empty": "error",
    "no-sparse-arrays": "error", "no-unsafe-finally": "error", "valid-typeof": "error", "use-isnan": "error",
    "require-yield": "error", "max-lines": ["error", 400], "max-lines-per-function": ["error", 60],
    "max-len": ["error", 120], complexity: ["error", 15],
  },
}];
