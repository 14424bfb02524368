# A compressed model as a package. Its shell is checked in edgekd's tests; not run with bitbake there.
#
#   inherit edgekd-model
#   SRC_URI = "file://recipe.toml file://teacher.safetensors"
#   EDGEKD_RECIPE = "${WORKDIR}/recipe.toml"
#   EDGEKD_TARGET = "raspberry-pi-5"
#   EDGEKD_BUDGETS = "size_kib=400 accuracy_drop=1"
#   EDGEKD_ACCEPT = "simulated"
#
# The package has the model files and edgekd.lock in ${datadir}/edgekd/${EDGEKD_NAME}; the -dev package
# has the C header and source if EDGEKD_SOURCES is "c" or "tflm". A broken budget fails do_compile with
# one line. Nothing is downloaded: do_compile has no network.

DEPENDS += "python3-edgekd-native"

EDGEKD_NAME ?= "${@d.getVar('BPN').replace('-', '_')}"
EDGEKD_RECIPE ?= "${WORKDIR}/recipe.toml"
EDGEKD_TARGET ?= ""
EDGEKD_BUDGETS ?= ""
EDGEKD_ACCEPT ?= ""
EDGEKD_SOURCES ?= ""

B = "${WORKDIR}/edgekd"
do_compile[cleandirs] = ""
do_compile[network] = "0"

python () {
    for name in ("EDGEKD_RECIPE", "EDGEKD_TARGET"):
        if not d.getVar(name):
            raise bb.parse.SkipRecipe("%s is not set" % name)
}

edgekd_model_do_compile() {
    options=""
    for limit in ${EDGEKD_BUDGETS}; do
        options="$options --budget $limit"
    done
    for kind in ${EDGEKD_ACCEPT}; do
        options="$options --accept $kind"
    done
    export EDGEKD_CACHE="${B}/cache"
    edgekd compress "${EDGEKD_RECIPE}" --target "${EDGEKD_TARGET}" --out "${B}/run" \
        --offline --no-progress $options
    if [ -n "${EDGEKD_SOURCES}" ]; then
        edgekd firmware build "${EDGEKD_RECIPE}" --target "${EDGEKD_TARGET}" \
            --name "${EDGEKD_NAME}" --out "${B}/sources" --run "${B}/run" \
            --output "${EDGEKD_SOURCES}" $options
    fi
}

edgekd_model_do_install() {
    install -d "${D}${datadir}/edgekd/${EDGEKD_NAME}"
    for file in "${B}"/run/artifacts/*/model*.* "${B}/run/edgekd.lock"; do
        install -m 0644 "$file" "${D}${datadir}/edgekd/${EDGEKD_NAME}/"
    done
    if [ -n "${EDGEKD_SOURCES}" ]; then
        install -d "${D}${includedir}/edgekd"
        for file in "${B}/sources/${EDGEKD_NAME}"*.[ch]; do
            install -m 0644 "$file" "${D}${includedir}/edgekd/"
        done
    fi
}

FILES:${PN} += "${datadir}/edgekd"

EXPORT_FUNCTIONS do_compile do_install
