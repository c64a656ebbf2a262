"""The open collections that lung scans of the training table come from, with the attribution that licenses ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...errors import InputError


@dataclass(frozen=True)
class Collection:
    """A collection of The Cancer Imaging Archive, or another public one.

    :param prefix: its scans' names in the table of cases begin with it.
    :param attribution: as the collection asks for it.
    """

    name: str
    prefix: str
    license: str
    attribution: str


CC3 = "Creative Commons Attribution 3.0 Unported"
CC4 = "Creative Commons Attribution 4.0 International"
COLLECTIONS = (
    Collection(
        "LCTSC",
        "LCTSC",
        CC3,
        "Yang J, Sharp G, Veeraraghavan H, van Elmpt W, Dekker A, Lustberg T, Gooding M. Data from Lung CT "
        "Segmentation Challenge. The Cancer Imaging Archive, 2017. doi:10.7937/K9/TCIA.2017.3r3fvz08",
    ),
    Collection(
        "LIDC-IDRI",
        "lidc_idri",
        CC3,
        "Armato SG III et al. Data From LIDC-IDRI. The Cancer Imaging Archive, 2015. doi:10.7937/K9/TCIA.2015.LO9QL9SX",
    ),
    Collection(
        "Lung-PET-CT-Dx",
        "lungdx",
        CC4,
        "Li P et al. A Large-Scale CT and PET/CT Dataset for Lung Cancer Diagnosis. The Cancer Imaging Archive, 2020. "
        "doi:10.7937/TCIA.2020.NNC2-0461",
    ),
    Collection(
        "Lung-Fused-CT-Pathology",
        "lungfcp",
        CC3,
        "Madabhushi A, Rusu M. Fused Radiology-Pathology Lung Dataset. The Cancer Imaging Archive, 2018. "
        "doi:10.7937/K9/TCIA.2018.SMT36LPN",
    ),
    Collection(
        "RIDER Pilot",
        "rider_pilot",
        CC4,
        "Lung Image Database Consortium. RIDER Pilot. The Cancer Imaging Archive, 2023. doi:10.7937/m87f-mz83",
    ),
    Collection(
        "CMB-CRC",
        "cmb_crc",
        CC4,
        "Cancer Moonshot Biobank. Colorectal Cancer Collection (CMB-CRC). The Cancer Imaging Archive, 2022. "
        "doi:10.7937/DJG7-GZ87",
    ),
    Collection(
        "CPTAC-PDA",
        "cptac_pda",
        CC4,
        "National Cancer Institute Clinical Proteomic Tumor Analysis Consortium (CPTAC), which generated the data. "
        "CPTAC-PDA. The Cancer Imaging Archive, 2018. doi:10.7937/K9/TCIA.2018.SC20FO18",
    ),
    Collection(
        "Colorectal-Liver-Metastases",
        "crlm",
        CC4,
        "Simpson AL et al. Preoperative CT and Survival Data for Patients Undergoing Resection of Colorectal Liver "
        "Metastases. The Cancer Imaging Archive, 2023. doi:10.7937/QXK2-QG03",
    ),
    Collection(
        "ACRIN-FLT-Breast",
        "acrin_flt",
        CC3,
        "Kinahan P et al. Data from ACRIN-FLT-Breast. The Cancer Imaging Archive, 2017. "
        "doi:10.7937/K9/TCIA.2017.OL20ZMXG",
    ),
    Collection(
        "ACRIN-NSCLC-FDG-PET",
        "acrin_nsclc",
        CC3,
        "Kinahan P, Muzi M, Bialecki B, Herman B, Coombs L. Data from the ACRIN 6668 Trial NSCLC-FDG-PET. The Cancer "
        "Imaging Archive, 2019. doi:10.7937/tcia.2019.30ilqfcl",
    ),
    Collection(
        "NLST",
        "nlst",
        CC4,
        "National Lung Screening Trial Research Team. Data from the National Lung Screening Trial (NLST). The Cancer "
        "Imaging Archive, 2013. doi:10.7937/TCIA.HMQ8-J677",
    ),
    Collection(
        "TotalSegmentator test files",
        "totalseg",
        "Apache-2.0",
        "Wasserthal J et al. TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images. Radiology: "
        "Artificial Intelligence, 2023. doi:10.1148/ryai.230024, github.com/wasserth/TotalSegmentator",
    ),
    Collection(
        "Soft-tissue-Sarcoma, cropped for IBSI",
        "sts",
        CC3,
        "Vallieres M, Freeman CR, Skamene SR, El Naqa I. A radiomics model from joint FDG-PET and MRI texture features "
        "for the prediction of lung metastases in soft-tissue sarcomas of the extremities. The Cancer Imaging Archive, "
        "2015. doi:10.7937/K9/TCIA.2015.7GO2GSKS; cropped by Zwanenburg A for IBSI, github.com/theibsi/data_sets",
    ),
    Collection(
        "COVID-19-NY-SBU",
        "covid_sbu",
        CC4,
        "Saltz J et al. Stony Brook University COVID-19 Positive Cases. The Cancer Imaging Archive, 2021. "
        "doi:10.7937/TCIA.BBAG-2923",
    ),
)


def scans_by_collection(cases: Iterable[str]) -> dict[Collection, int]:
    """How many of the scans come from each collection; those without any are left out.

    :param cases: paths of the scans, as in the table of cases.
    :raises LesionDecompError: a scan of none of them: its license is not known.
    """
    counts = dict.fromkeys(COLLECTIONS, 0)
    for case in cases:
        name = PurePosixPath(case).name
        found = [collection for collection in COLLECTIONS if name.startswith(collection.prefix)]
        if not found:
            expected = f"a name that begins with one of {', '.join(collection.prefix for collection in COLLECTIONS)}"
            raise InputError("Provenance of the lung scans", f"the scan '{name[:60]}'", expected)
        counts[found[0]] += 1
    return {collection: count for collection, count in counts.items() if count}
