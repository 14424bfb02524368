# A compressed model as a package. Parsed and run by bitbake's own parser and task executor in edgekd's
# tests, with stand-ins for OpenEmbedded's base classes; not tested in a full Yocto build.
#
#   inherit edgekd_model
#   SRC_URI = "file://recipe.toml file://teacher.safetensors"
#   EDGEKD_TARGET = "raspberry-pi-5"
#   EDGEKD_BUDGETS = "size_kib=400 accuracy_drop=1"
#   EDGEKD_ACCEPT = "simulated"
#
# The package has the model files and edgekd.lock in ${datadir}/edgekd/${EDGEKD_NAME}; the -dev package
# has the C header and source if EDGEKD_SOURCES is "c" or "tflm". A broken budget fails do_compile with
# one line. Nothing is downloaded: do_compile has no network, which is bitbake's default.
#
# edgekd itself comes from a recipe in your layer, or from the build machine:
#   EDGEKD_DEPENDS = ""        in the recipe, and   HOSTTOOLS += "edgekd"   in local.conf

EDGEKD_DEPENDS ?= "python3-edgekd-native"
DEPENDS += "${EDGEKD_DEPENDS}"

# Releases since 5.1 unpack into a separate folder.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"
B = "${WORKDIR}/edgekd"

EDGEKD_NAME ?= "${@d.getVar('BPN').replace('-', '_')}"
EDGEKD_RECIPE ?= "${S}/recipe.toml"
EDGEKD_TARGET ?= ""
EDGEKD_BUDGETS ?= ""
EDGEKD_ACCEPT ?= ""
EDGEKD_SOURCES ?= ""

python () {
    if not d.getVar("EDGEKD_TARGET"):
        raise bb.parse.SkipRecipe("EDGEKD_TARGET is not set: a name that 'edgekd targets' lists")
    if d.getVar("EDGEKD_SOURCES") not in ("", "c", "tflm"):
        raise bb.parse.SkipRecipe("EDGEKD_SOURCES is neither 'c' nor 'tflm'")
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
    rm -rf "${B}/run/artifacts" "${B}/sources"
    edgekd compress "${EDGEKD_RECIPE}" --target "${EDGEKD_TARGET}" --out "${B}/run" \
        --offline --no-progress $options
    edgekd verify "${B}/run"
    if [ -n "${EDGEKD_SOURCES}" ]; then
        for model in "${B}"/run/artifacts/*/model.tflite; do
            npu="${model%.tflite}_vela.tflite"
            if [ "${EDGEKD_SOURCES}" = tflm ] && [ -e "$npu" ]; then
                model="$npu"
            fi
            edgekd firmware "${EDGEKD_SOURCES}" "$model" --out "${B}/sources" \
                --name "${EDGEKD_NAME}"
        done
    fi
}

edgekd_model_do_install() {
    install -d "${D}${datadir}/edgekd/${EDGEKD_NAME}"
    for file in "${B}"/run/artifacts/*/model* "${B}/run/edgekd.lock"; do
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
